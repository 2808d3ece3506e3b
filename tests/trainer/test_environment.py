"""Every setting of a round works as a variable, as containers are given it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from trainer.cli import Evolve, app
from trainer.settings.evolve import EvolveSettings


def another(field: FieldInfo, path: Path) -> Any:
    """A value that is not the setting's default."""
    kind = next(kind for kind in (*get_args(field.annotation), field.annotation) if kind is not type(None))
    if get_origin(field.annotation) is Literal:
        return next(choice for choice in get_args(field.annotation) if choice != field.default)
    if field.annotation is bool:
        return not field.default
    if isinstance(field.default, int) or "int" in str(kind):
        return (field.default or 8) + 1
    if kind is float:
        return (field.default or 1) * 0.75
    return path if kind is Path else "something"


def test_every_setting_of_a_round_works_as_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {name: another(field, tmp_path) for name, field in EvolveSettings.model_fields.items()}
    for name, value in values.items():
        monkeypatch.setenv(f"EVOQUALITY_TRAINER_{name.upper()}", str(value))
    monkeypatch.setattr(sys, "argv", ["evoquality-trainer", "evolve"])
    begun: list[EvolveSettings] = []
    monkeypatch.setattr(Evolve, "cli_cmd", lambda settings: begun.append(settings))
    app()
    (settings,) = begun
    assert settings.model_dump() == values
    assert not [name for name, field in EvolveSettings.model_fields.items() if values[name] == field.default]
