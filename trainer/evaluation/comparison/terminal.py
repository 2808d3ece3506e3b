"""A comparison in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.evaluation.comparison.comparison import Comparison
from trainer.evaluation.comparison.tables import TITLES, WEIGHTED

SHOWN = ("plcc", "plcc_fitted", "srcc")


def show(comparison: Comparison, console: Console) -> None:
    """A row a benchmark and model: metrics, the interval of SRCC, its difference to the baseline and that one's p."""
    level = f"{comparison.chance.level:.0%}"
    table = Table("benchmark", "model", *(TITLES[name] for name in SHOWN), f"SRCC {level}", "n", title="Evaluation")
    if comparison.others:
        table.add_column("SRCC - baseline")
        table.add_column("p (Holm)")
    for name in comparison.counts:
        for model, evaluation in comparison.evaluations.items():
            metrics = evaluation.benchmarks[name]
            values = [f"{getattr(metrics, metric):.3f}" for metric in SHOWN]
            chance = [_interval(comparison, model, name), str(metrics.n), *_test(comparison, model, name)]
            table.add_row(name if model == comparison.baseline else "", escape(model), *values, *chance)
        table.add_section()
    for model in comparison.evaluations:
        values = [f"{comparison.weighted(model, metric):.3f}" for metric in SHOWN]
        table.add_row(WEIGHTED if model == comparison.baseline else "", escape(model), *values, style="bold")
    console.print(table)
    for model in comparison.others:
        gain = comparison.gain_percent(model)
        console.print(f"{model}: {gain:+.1f} % weighted relative PLCC gain over {comparison.baseline}", markup=False)


def _interval(comparison: Comparison, model: str, name: str) -> str:
    found = comparison.intervals.get((model, name))
    return f"{found['srcc'].low:.3f} to {found['srcc'].high:.3f}" if found else "-"


def _test(comparison: Comparison, model: str, name: str) -> list[str]:
    test = comparison.tests.get((model, name))
    return [f"{test.difference:+.3f}", f"{comparison.corrected[model, name]:.3f}"] if test else []
