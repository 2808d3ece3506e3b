"""Sources of settings besides flags: the environment and a TOML file. A misspelt name is an error."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

from service.errors import UserError
from service.files import read_text

PREFIX = "EVOQUALITY_"
OTHERS = {PREFIX + name for name in ("URL", "KEY", "OPERATOR_URL", "OPERATOR_KEY")}
"""Variables that the other commands read."""
_TRAINER = f"{PREFIX}TRAINER_"
_LONGEST_VALUE = 100
_LINK = re.compile(r"_SERVICE_HOST=|_SERVICE_PORT(_\w+)?=|_PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?=|_PORT=\w+://")
"""Kubernetes sets variables for the services beside a pod: one named `evoquality` sets EVOQUALITY_PORT=tcp://…"""


class Environment(EnvSettingsSource):
    """`EVOQUALITY_<NAME>`. Raises UserError for a variable that looks like one but is not, except for service links."""

    def __call__(self) -> dict[str, Any]:
        known = [variable(name) for name in self.settings_cls.model_fields]
        links = {name for name, value in os.environ.items() if _LINK.search(f"{name.upper()}={value}")}
        for name in map(str.upper, os.environ.keys() - links):
            if name.startswith(PREFIX) and not name.startswith(_TRAINER):
                _check(name, [*known, *OTHERS], "in the environment")
        self.env_vars = {name: value for name, value in self.env_vars.items() if name not in map(str.lower, links)}
        return super().__call__()


class File(PydanticBaseSettingsSource):
    """The TOML file that `config` names, in flags or in the environment. Raises UserError."""

    def __call__(self) -> dict[str, Any]:
        file = self.current_state.get("config")
        return self._read(Path(file)) if file else {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Required by the base class; unused, since the file is read as a whole."""
        raise NotImplementedError

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            values = tomllib.loads(read_text(file, "the settings file"))
        except OSError as error:
            raise UserError(f"the settings file {file} cannot be read: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"the settings file {file} is not valid TOML: {error}") from None
        for name in values:
            _check(name, set(self.settings_cls.model_fields) - {"config"}, f"in {file}")
        return values


def variable(name: str) -> str:
    """A setting's environment variable."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """A setting's flag of `evoquality serve`."""
    return "--" + name.replace("_", "-")


def sentence(error: ValidationError) -> str:
    """Names each wrong setting with the reason."""
    return "; ".join(map(_sentence, error.errors()))


def _sentence(problem: ErrorDetails) -> str:
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return reason
    name = str(problem["loc"][0])
    given = repr(problem["input"])[:_LONGEST_VALUE]
    return f"{name} ({flag(name)}, {variable(name)}) is {given}: {reason[:1].lower()}{reason[1:]}"


def _check(name: str, known: Iterable[str], where: str) -> None:
    if name not in known:
        nearest = get_close_matches(name, known, 1)
        hint = f"did you mean {nearest[0]}?" if nearest else "`evoquality serve --help` lists them"
        raise UserError(f"there is no setting {name} ({where}); {hint}")
