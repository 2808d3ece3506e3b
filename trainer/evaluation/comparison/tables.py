"""The tables of a comparison: to look at, to cite, to compute with."""

from __future__ import annotations

import pandas as pd

from trainer.evaluation.comparison.comparison import AVERAGED, Comparison
from trainer.evaluation.intervals import NAMES
from trainer.evaluation.resampling import Interval

TITLES = {
    "plcc": "PLCC", "plcc_fitted": "PLCC (fitted)", "srcc": "SRCC", "krcc": "KRCC", "rmse": "RMSE",
    "pairwise_accuracy": "pairwise accuracy",
}  # fmt: skip
WEIGHTED = "weighted"


def scores(comparison: Comparison) -> pd.DataFrame:
    """Rows (metric, model), a column a benchmark, and their mean weighted by numbers of images."""
    rows = {
        (TITLES[metric], model): {
            **comparison.values(model, metric),
            WEIGHTED: comparison.weighted(model, metric),
        }
        for metric in AVERAGED
        for model in comparison.evaluations
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*comparison.counts, WEIGHTED])
    return frame.rename_axis(index=["metric", "model"])


def averages(comparison: Comparison) -> pd.DataFrame:
    """A row a model: its weighted means and its gain over the baseline, as texts with their intervals."""
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
    """The weighted relative PLCC gain over the baseline, with its interval; nothing where there is none."""
    found = None if model == comparison.baseline else comparison.gain_percent(model)
    return "" if found is None else _text(found, comparison.gain_interval(model), "{:+.1f} %")


def _text(value: float, interval: Interval | None, form: str = "{:.3f}") -> str:
    reach = f" ({form.format(interval.low)} to {form.format(interval.high)})" if interval else ""
    return form.format(value) + reach


def tests(comparison: Comparison) -> pd.DataFrame:
    """Each model's SRCC less the baseline's, a row a model and benchmark."""
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
    """A row a model and benchmark: all metrics, their intervals, who was asked and how."""
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
    """GitHub's tables, three decimals."""
    parts = [
        scores(comparison).reset_index().to_markdown(index=False, floatfmt=".3f"),
        f"Weighted by numbers of images, with intervals of {comparison.chance.level:.0%}:",
        averages(comparison).to_markdown(),
    ]
    if comparison.tests:
        parts.append(f"SRCC against {comparison.baseline}, with intervals of {comparison.chance.level:.0%}:")
        parts.append(tests(comparison).to_markdown(index=False, floatfmt=".3f"))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """Two tables for the package booktabs: all benchmarks, the best model of each metric in bold, and the averages."""
    frame = scores(comparison)
    shown = frame.style.format(precision=3).format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    for title in frame.index.unique("metric") if comparison.others else ():
        shown = shown.highlight_max(subset=pd.IndexSlice[[title], :], props="textbf:--rwrap;")
    everywhere = shown.hide(axis="index", names=True).to_latex(hrules=True, multirow_align="naive")
    weighted = averages(comparison).style.format(escape="latex").format_index(escape="latex", axis=0)
    return f"{everywhere}\n{weighted.hide(axis='index', names=True).to_latex(hrules=True)}"
