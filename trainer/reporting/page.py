"""The report's page: one file, light and dark, that asks nothing of any other host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.reporting import plots
from trainer.reporting.examples import examples
from trainer.reporting.vote_table import cells

TEMPLATES = Path(__file__).with_name("templates")


def render(run: Path, report: dict[str, Any]) -> str:
    """The page of what `report.json` holds, with plots and example pairs from the run's files."""
    voted = {entry["round"]: entry["vote"] for entry in report["rounds"] if "vote" in entry}
    return filled(
        "page.html.jinja",
        report=report,
        plots=plots.of_run(run, report),
        examples={number: examples(run / f"round-{number}") for number in voted},
        votes={f"round {number}": cells(figures) for number, figures in voted.items()},
    )


def filled(template: str, **values: Any) -> str:
    """A page made of one of the templates."""
    from jinja2 import Environment, FileSystemLoader

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=FileSystemLoader(TEMPLATES))
    page.filters |= {"signed": "{:+.1f} %".format, "percent": _percent, "count": _count, "duration": _duration}
    return page.get_template(template).render(values)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(value: float) -> str:
    return f"{round(value):,}"


def _duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
