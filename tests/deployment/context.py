"""What `docker build .` would send: the working tree without what .dockerignore leaves out.

Source of the rules: Docker's build documentation, ".dockerignore files".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def rules(file: Path) -> list[str]:
    """The file's patterns, in their order."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def sent(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of the paths, relative to the context, that are sent: the last pattern that fits decides."""
    compiled = [(not pattern.startswith("!"), _regex(pattern.lstrip("!"))) for pattern in patterns]
    return [path for path in paths if not _left_out(path, compiled)]


def _left_out(path: str, compiled: Sequence[tuple[bool, re.Pattern[str]]]) -> bool:
    decisions = [leaves_out for leaves_out, pattern in compiled if pattern.fullmatch(path)]
    return bool(decisions) and decisions[-1]


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern fits a path, and with a folder all that is in it."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return re.compile("".join(_WILDCARDS.get(part, re.escape(part)) for part in parts) + "(?:/.*)?")
