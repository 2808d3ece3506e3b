"""The settings with their descriptions, for `evoquality serve --help` and REFERENCE.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

from service.configuration.settings import SECTIONS, Settings

_KINDS = {bool: "BOOLEAN", int: "INTEGER", float: "NUMBER", Path: "PATH"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting. `kind` describes its values; `default` is empty if it has none."""

    section: str
    name: str
    kind: str
    default: str
    help: str


def settings() -> Iterator[Entry]:
    """Every setting, section by section."""
    section = ""
    for name, field in Settings.model_fields.items():
        section = SECTIONS.get(name, section)
        text = " ".join((field.description or "").split()) + _choices(field.annotation)
        yield Entry(section, name, _kind(field.annotation), _default(field.default), text)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "CHOICE"
    if annotation in _KINDS:
        return _KINDS[annotation]
    return next((_kind(part) for part in get_args(annotation) if part is not type(None)), "TEXT")


def _choices(annotation: Any) -> str:
    """The choices as a sentence to append to the description."""
    if get_origin(annotation) is Literal:
        return f" One of {', '.join(f'`{choice}`' for choice in get_args(annotation))}."
    return next(filter(None, map(_choices, get_args(annotation))), "")


def _default(value: Any) -> str:
    if value in (None, PydanticUndefined, (), [], {}):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
