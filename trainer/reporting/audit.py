"""The results of an audit of votes on benchmarks: `audit.json`, a self-contained `audit.html`, a terminal's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Column, Table

from trainer.files import write_json, write_text
from trainer.reporting.page import filled
from trainer.reporting.plots import vote_plots
from trainer.reporting.vote_table import cells

SHORT = (
    "unreadable answers",
    "right, a tie counting half",
    "circular triples",
    "for the image shown first",
    "orders contradict each other",
)
"""The rows that fit a terminal's width."""


def write_audit(out: Path, found: dict[str, Any]) -> None:
    """Writes both files."""
    write_json(out / "audit.json", found)
    sets = found["benchmarks"].items()
    tables = {name: {version: cells(figures) for version, figures in of["versions"].items()} for name, of in sets}
    plots = {name: vote_plots(of["versions"]) for name, of in sets}
    write_text(out / "audit.html", filled("audit.html.jinja", audit=found, tables=tables, plots=plots))


def table(found: dict[str, Any], version: str) -> Table:
    """The quality of one version's votes, a row for each benchmark."""
    shown = Table(Column("benchmark", no_wrap=True), title=f"votes of version {version}", padding=(0, 0, 0, 1))
    for title in SHORT:
        shown.add_column(title, overflow="fold")
    for name, of in found["benchmarks"].items():
        if version in of["versions"]:
            row = cells(of["versions"][version])
            shown.add_row(name, *(row[title] for title in SHORT))
    return shown
