"""Tables of a comparison: Markdown, LaTeX, CSV and the terminal's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.evaluation.bootstrap import NAMES, Interval
from trainer.evaluation.comparison.comparison import AVERAGED, Comparison

TITLES = {
    "plcc": "PLCC",
    "plcc_fitted": "PLCC (fitted)",
    "srcc": "SRCC",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "pairwise_accuracy": "pairwise accuracy",
}
WEIGHTED = "weighted"
SHOWN = {"plcc": "PLCC", "plcc_fitted": "fitted", "srcc": "SRCC"}


def scores(comparison: Comparison) -> pd.DataFrame:
    """Rows (metric, model); one column per benchmark and one for the mean weighted by number of images."""
    rows = {
        (TITLES[metric], model): {**comparison.values(model, metric), WEIGHTED: comparison.weighted(model, metric)}
        for metric in AVERAGED
        for model in comparison.evaluations
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*comparison.counts, WEIGHTED])
    return frame.rename_axis(index=["metric", "model"])


def averages(comparison: Comparison) -> pd.DataFrame:
    """One row per model: weighted means and gain over the baseline, as text with intervals."""
    rows = {
        model: {
            **{
                TITLES[metric]: _text(comparison.weighted(model, metric), comparison.weighted_interval(model, metric))
                for metric in AVERAGED
            },
            **({"PLCC gain": gain(comparison, model)} if comparison.others else {}),
        }
        for model in comparison.evaluations
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="weighted")


def gain(comparison: Comparison, model: str) -> str:
    """The weighted relative PLCC gain over the baseline with its interval, as text; empty if undefined."""
    found = None if model == comparison.baseline else comparison.gain_percent(model)
    return "" if found is None else _text(found, comparison.gain_interval(model), "{:+z.1f} %")


def _text(value: float, interval: Interval | None, form: str = "{:z.3f}") -> str:
    reach = f" ({form.format(interval.low)} to {form.format(interval.high)})" if interval else ""
    return form.format(value) + reach


def tests(comparison: Comparison) -> pd.DataFrame:
    """Each model's SRCC minus the baseline's, one row per model and benchmark."""
    rows = [
        {
            "model": model,
            "benchmark": benchmark,
            "SRCC difference": test.difference,
            "low": test.interval.low,
            "high": test.interval.high,
            "p": test.p,
            "p (Holm)": comparison.corrected[model, benchmark],
            "n": test.n,
        }
        for (model, benchmark), test in comparison.tests.items()
    ]
    return pd.DataFrame(rows)


def everything(comparison: Comparison) -> pd.DataFrame:
    """One row per model and benchmark: all metrics, intervals, version and protocol."""
    return pd.DataFrame(
        {
            "model": model,
            "version": evaluation.version,
            "benchmark": name,
            "n": metrics.n,
            **{metric: getattr(metrics, metric) for metric in NAMES},
            **{
                f"{metric}_{end}": getattr(interval, end)
                for metric, interval in comparison.intervals.get((model, name), {}).items()
                for end in ("low", "high")
            },
            **evaluation.protocol.as_dict(),
        }
        for model, evaluation in comparison.evaluations.items()
        for name, metrics in evaluation.benchmarks.items()
    )


def markdown(comparison: Comparison) -> str:
    """GitHub Markdown, three decimals."""
    parts = [
        scores(comparison).reset_index().to_markdown(index=False, floatfmt="z.3f"),
        f"Weighted by numbers of images, with intervals of {comparison.bootstrap.level:.0%}:",
        averages(comparison).to_markdown(),
    ]
    if comparison.tests:
        parts.append(f"SRCC against {comparison.baseline}, with intervals of {comparison.bootstrap.level:.0%}:")
        parts.append(tests(comparison).to_markdown(index=False, floatfmt="z.3f"))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """Two booktabs tables: all benchmarks, with the best model of each metric in bold, and the averages."""
    frame = scores(comparison)
    shown = frame.style.format("{:z.3f}").format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    for title in frame.index.unique("metric") if comparison.others else ():
        shown = shown.highlight_max(subset=pd.IndexSlice[[title], :], props="textbf:--rwrap;")
    everywhere = shown.hide(axis="index", names=True).to_latex(hrules=True, multirow_align="naive")
    weighted = averages(comparison).style.format(escape="latex").format_index(escape="latex", axis=0)
    return f"{everywhere}\n{weighted.hide(axis='index', names=True).to_latex(hrules=True)}"


def show(comparison: Comparison, console: Console) -> None:
    """Prints, below each benchmark, one row per model: metrics, interval of SRCC, difference to the baseline and its
    p-value with Holm's correction. Then averages, gains and remarks."""
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
    for title in (*SHOWN.values(), f"{comparison.bootstrap.level:.0%} of SRCC", *tested):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _row(model: str, values: Sequence[float], interval: Interval | None) -> list[str | Text]:
    shown = f"{interval.low:z.3f} to {interval.high:z.3f}" if interval else "-"
    return [Text(f"  {model}"), *(f"{value:z.3f}" for value in values), shown]


def _test(comparison: Comparison, model: str, name: str) -> list[str]:
    test = comparison.tests.get((model, name))
    return [f"{test.difference:+z.3f}", f"{comparison.corrected[model, name]:z.3f}"] if test else []


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
