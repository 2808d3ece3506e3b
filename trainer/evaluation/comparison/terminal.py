"""A comparison in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.evaluation.comparison.comparison import Comparison
from trainer.evaluation.comparison.tables import WEIGHTED, gain
from trainer.evaluation.resampling import Interval

SHOWN = {"plcc": "PLCC", "plcc_fitted": "fitted", "srcc": "SRCC"}


def show(comparison: Comparison, console: Console) -> None:
    """A row a model below each benchmark: metrics, the interval of SRCC, its difference to the baseline and that
    one's p after Holm's correction. Then the averages, the gains, and what a reader must know."""
    table = _titled(comparison)
    for name, images in comparison.counts.items():
        table.add_row(Text(f"{name} ({images:,})"), style="bold")
        for model in comparison.evaluations:
            values = [comparison.values(model, metric)[name] for metric in SHOWN]
            interval = comparison.intervals.get((model, name), {}).get("srcc")
            table.add_row(*_row(model, values, interval), *_test(comparison, model, name))
        table.add_section()
    table.add_row(f"{WEIGHTED} mean", style="bold")
    for model in comparison.evaluations:
        values = [comparison.weighted(model, metric) for metric in SHOWN]
        table.add_row(*_row(model, values, comparison.weighted_interval(model, "srcc")))
    console.print(table)
    for line in (*_gains(comparison), *_remarks(comparison)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _titled(comparison: Comparison) -> Table:
    table = Table(show_edge=False, padding=(0, 0, 0, 1))
    table.add_column("benchmark (images)", overflow="fold")
    tested = ("+/-", "p (Holm)") if comparison.others else ()
    for title in (*SHOWN.values(), f"{comparison.chance.level:.0%} of SRCC", *tested):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _row(model: str, values: Sequence[float], interval: Interval | None) -> list[str | Text]:
    told = f"{interval.low:.3f} to {interval.high:.3f}" if interval else "-"
    return [Text(f"  {model}"), *(f"{value:.3f}" for value in values), told]


def _test(comparison: Comparison, model: str, name: str) -> list[str]:
    test = comparison.tests.get((model, name))
    return [f"{test.difference:+.3f}", f"{comparison.corrected[model, name]:.3f}"] if test else []


def _gains(comparison: Comparison) -> Iterator[str]:
    for model in comparison.others:
        if found := gain(comparison, model):
            yield f"{model}: weighted relative PLCC gain over {comparison.baseline} {found}"


def _remarks(comparison: Comparison) -> Iterator[str]:
    for name, notes in comparison.notes.items():
        yield from (f"{name}: {note}" for note in notes)
    for model, found in comparison.evaluations.items():
        for name, metrics in found.benchmarks.items():
            if without := comparison.counts[name] - metrics.n:
                refused = len(found.refused.get(name, ()))
                yield f"{name}: {without:,} images without a score of {model}, {refused:,} refused by the service"
