"""k8s/README.md, taken apart."""

from __future__ import annotations

import re

from tests.deployment.conftest import ROOT

GUIDE = (ROOT / "k8s/README.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """The text from a heading to the next of its level or a higher one."""
    level = heading.split()[0]
    body = GUIDE.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"\n#{{1,{len(level)}}} ", body, maxsplit=1)[0]


def spans() -> list[str]:
    """Everything in backticks, blocks included."""
    return [block or span for block, span in re.findall(r"```\n(.*?)```|`([^`]+)`", GUIDE, re.DOTALL)]


def commands(beginning: str) -> list[list[str]]:
    """The words of every command that begins so, comments left out."""
    lines = re.findall(rf"(?<![\w/-]){re.escape(beginning)}[^#\n`;|&']*", "\n".join(spans()))
    return [line.split() for line in lines]


def rows(heading: str) -> list[list[str]]:
    """The cells of the section's first table."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
