"""The Dockerfiles, as far as their facts are compared with the code's."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from dockerfile_parse import DockerfileParser

from tests.deployment.conftest import ROOT

NAMES = ("service", "trainer")


@dataclass(frozen=True)
class Instruction:
    """One instruction, `value` in one line."""

    name: str
    value: str


@dataclass(frozen=True)
class Dockerfile:
    """`docker/<name>.Dockerfile`."""

    name: str

    @property
    def path(self) -> Path:
        """Its path."""
        return ROOT / f"docker/{self.name}.Dockerfile"

    @property
    def instructions(self) -> list[Instruction]:
        """All of them; comments are left out."""
        parsed = DockerfileParser(fileobj=BytesIO(self.path.read_bytes())).structure
        return [Instruction(item["instruction"], item["value"]) for item in parsed if item["instruction"] != "COMMENT"]

    @property
    def last_stage(self) -> list[Instruction]:
        """The last stage, which makes the image itself."""
        instructions = self.instructions
        last = max(index for index, instruction in enumerate(instructions) if instruction.name == "FROM")
        return instructions[last:]

    def last(self, name: str) -> str:
        """The value of the last stage's last instruction of that name."""
        return [instruction.value for instruction in self.last_stage if instruction.name == name][-1]

    def words(self, name: str) -> list[str]:
        """The same in exec form. Raises ValueError for shell form."""
        return json.loads(self.last(name))

    @property
    def arguments(self) -> dict[str, str]:
        """Build arguments with their defaults."""
        return dict(item.value.split("=", 1) for item in self.instructions if item.name == "ARG" and "=" in item.value)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the last stage's ENV sets."""
        return dict(pair.split("=", 1) for pair in self.last("ENV").split())

    def extras(self, flavour: str) -> set[str]:
        """The extras that `docker/install` installs for a flavour."""
        [run] = [item.value for item in self.instructions if item.name == "RUN" and "docker/install " in item.value]
        _, _, extras = shlex.split(run.replace("${FLAVOUR}", flavour))
        return set(extras.split(","))

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels, with build arguments filled in."""
        pairs = re.findall(r'([\w.]+)="([^"]*)"', self.last("LABEL"))
        return {name: re.sub(r"\$\{(\w+)\}", lambda found: self.arguments[found[1]], value) for name, value in pairs}

    @property
    def commands(self) -> list[str]:
        """The commands that the last stage runs while it is built."""
        return [instruction.value for instruction in self.last_stage if instruction.name == "RUN"]
