"""Versions that must not serve, and why: `<store>/refused/<id>.json`, beside the immutable version.

Whoever trained a version writes the mark; removing the file takes it back.
"""

from __future__ import annotations

import json

from service.versions.store import VersionStore, write_atomically


def reason(store: VersionStore, version: str) -> str | None:
    """Why the version was refused; None if it was not."""
    try:
        return str(json.loads((store.root / "refused" / f"{version}.json").read_bytes())["reason"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "its mark cannot be read"


def refuse(store: VersionStore, version: str, reason: str) -> None:
    """Marks a version. Raises UnknownVersion."""
    store.manifest(version)
    folder = store.root / "refused"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{version}.json", json.dumps({"reason": reason}))
