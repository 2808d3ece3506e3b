"""The tables of a comparison: to look at, to cite, to compute with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from trainer.evaluation.comparison.comparison import Comparison
from trainer.evaluation.intervals import NAMES

TITLES = {
    "plcc": "PLCC", "plcc_fitted": "PLCC (fitted)", "srcc": "SRCC", "krcc": "KRCC", "rmse": "RMSE",
    "pairwise_accuracy": "pairwise accuracy",
}  # fmt: skip
CITED = ("plcc", "plcc_fitted", "srcc", "krcc")
WEIGHTED = "weighted"


def scores(comparison: Comparison, metrics: Sequence[str] = CITED) -> pd.DataFrame:
    """Rows (metric, model), a column a benchmark, and their mean weighted by numbers of images."""
    rows = {
        (TITLES[metric], model): {
            **comparison.values(model, metric),
            WEIGHTED: comparison.weighted(model, metric),
        }
        for metric in metrics
        for model in comparison.evaluations
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*comparison.counts, WEIGHTED])
    return frame.rename_axis(index=["metric", "model"])


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
    parts = [scores(comparison).reset_index().to_markdown(index=False, floatfmt=".3f")]
    if comparison.others:
        parts.append(f"SRCC against {comparison.baseline}, {comparison.chance.level:.0%} intervals:")
        parts.append(tests(comparison).to_markdown(index=False, floatfmt=".3f"))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """For the package booktabs; the best of each metric is bold."""
    frame = scores(comparison)
    shown = frame.style.format(precision=3).format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    for title in frame.index.unique("metric"):
        shown = shown.highlight_max(subset=pd.IndexSlice[[title], :], props="textbf:--rwrap;")
    return str(shown.hide(axis="index", names=True).to_latex(hrules=True, multirow_align="naive"))
