"""Metrics of models on benchmarks: `results/leaderboard.json`, the source of the READMEs' tables.

    python -m tests.benchmarks.leaderboard [--run runs/demo]

replaces the demo's rows by those of a finished run, and writes its traffic, swaps and votes to `results/demo.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console

from trainer.errors import UserError
from trainer.files import read_json, write_json, write_text
from trainer.reporting.averages import relative_gain_percent, weighted_mean
from trainer.reporting.drawing import draw, plcc_bars

FILE = Path(__file__).with_name("results") / "leaderboard.json"
DEMO_FILE = FILE.with_name("demo.json")
DEMO, BASE = "demo:", "demo:base"
_GREY = "#555555"
"""Legible on a light and on a dark page."""
Correlation = Annotated[float, Field(ge=-1, le=1)]
Metric = Literal["plcc", "plcc_fitted", "srcc", "krcc", "rmse"]


class Row(BaseModel):
    """Metrics of a model on a benchmark; unknown ones are None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    """Prefixed with its origin: `paper:evoquality-round2`, `demo:base`, `demo:round1`."""
    version: str | None
    """Version id in the store that served the weights."""
    benchmark: str = Field(min_length=1)
    n: int = Field(ge=1)
    """Number of images with a readable prediction."""
    plcc: Correlation | None
    plcc_fitted: Correlation | None
    srcc: Correlation | None
    krcc: Correlation | None
    rmse: float | None = Field(ge=0)
    source: str = Field(min_length=1)
    """Publication, or the command that measured it."""


class Leaderboard(BaseModel):
    """All rows; one per model and benchmark."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[Row]

    @model_validator(mode="after")
    def _once(self) -> Leaderboard:
        if len({(row.model, row.benchmark) for row in self.rows}) < len(self.rows):
            raise ValueError("a model has two rows for one benchmark")
        return self

    @classmethod
    def load(cls, file: Path = FILE) -> Leaderboard:
        """Raises ValueError, with the reason, if the file is not a leaderboard."""
        try:
            return cls.model_validate(read_json(file))
        except (ValidationError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} is not a leaderboard: {error}") from error

    def save(self, file: Path = FILE) -> None:
        """Writes one row per line, so that diffs are readable."""
        rows = ",\n".join(json.dumps(row.model_dump(), allow_nan=False) for row in self.rows)
        write_text(file, f'{{"rows": [\n{rows}\n]}}\n')

    def with_demo(self, rows: Iterable[Row]) -> Leaderboard:
        """Replaces all rows of the previous demo, which may have had more rounds."""
        return Leaderboard(rows=[*(row for row in self.rows if not row.model.startswith(DEMO)), *rows])

    def models(self, prefix: str) -> list[str]:
        """Names of the models that begin with `prefix`, in the file's order."""
        return list(dict.fromkeys(row.model for row in self.rows if row.model.startswith(prefix)))

    def of(self, model: str) -> dict[str, Row]:
        """Benchmark -> row. Raises KeyError for an unknown model."""
        found = {row.benchmark: row for row in self.rows if row.model == model}
        if not found:
            raise KeyError(f"{model} is not on the leaderboard")
        return found

    def values(self, model: str, metric: Metric = "plcc") -> dict[str, float]:
        """Benchmark -> metric, where it is known."""
        known = {name: getattr(row, metric) for name, row in self.of(model).items()}
        return {name: value for name, value in known.items() if value is not None}

    def weighted(self, model: str, metric: Metric = "plcc") -> float:
        """Mean over the model's benchmarks, weighted by their number of images."""
        return weighted_mean(self.values(model, metric), self._counts(model))

    def gain_percent(self, before: str, after: str, metric: Metric = "plcc") -> float:
        """The paper's headline figure, see `averages.relative_gain_percent`."""
        return relative_gain_percent(self.values(before, metric), self.values(after, metric), self._counts(before))

    def _counts(self, model: str) -> dict[str, int]:
        return {name: row.n for name, row in self.of(model).items()}


def demo_rows(run: Path) -> list[Row]:
    """The rows of a finished demo run. Raises ValueError if the folder holds none."""
    if not (run / "seconds.json").exists():
        raise ValueError(f"{run} is not a finished demo run: run `make demo` first, or give its folder with --run")
    evaluations = sorted((run / "evaluations").glob("round-*.json"), key=_round)
    settings = read_json(run / "settings.json")
    source = f"python -m trainer.demo.run --seed {settings['seed']} --policy {settings['policy']}"
    return [row for file in evaluations for row in _rows(_round(file), read_json(file), source)]


def _round(file: Path) -> int:
    return int(file.stem.removeprefix("round-"))


def _rows(number: int, evaluation: Mapping[str, Any], source: str) -> list[Row]:
    model = f"{DEMO}round{number}" if number else BASE
    columns = Row.model_fields.keys() - {"model", "version", "benchmark", "source"}
    return [
        Row(
            model=model,
            version=evaluation["version"],
            benchmark=benchmark,
            source=source,
            **{column: metrics.get(column) for column in columns},
        )
        for benchmark, metrics in evaluation["benchmarks"].items()
    ]


def demo_summary(run: Path) -> dict[str, Any]:
    """Traffic, blackouts and the quality of the votes of a demo run. Raises ValueError without a finished report."""
    report = read_json(run / "report.json") if (run / "report.json").exists() else {"rounds": []}
    audited = [entry for entry in report["rounds"] if "accuracy" in entry.get("vote", {})]
    if not audited or "traffic" not in report:
        raise ValueError(
            f"{run} has no report with audited votes: run `make demo` first, or name its folder with --run"
        )
    return {
        "seconds_total": report["seconds_total"],
        "traffic": {name: report["traffic"][name] for name in ("requests", "failed", "mixed_version_answers")},
        "blackout_ms": [swap["blackout_ms"] for swap in report["swaps"]],
        "votes": {f"round {entry['round']}": vote_summary(entry["vote"]) for entry in audited},
    }


def vote_summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a round's votes without those by margin and by difference."""
    accuracy = figures["accuracy"]
    known = {name: accuracy[name] for name in ("label", "majority")}
    kept = {name: figures[name] for name in ("pairs", "votes", "ties", "unreadable", "cycles", "position", "changes")}
    return {**kept, "accuracy": {**known, "calibration": {"error": accuracy["calibration"]["error"]}}}


def demo_models(board: Leaderboard) -> dict[str, str]:
    """Heading -> model: the demo's base and its rounds."""
    rounds = board.models(f"{DEMO}round")
    return {"base": BASE, **{f"round {name.removeprefix(f'{DEMO}round')}": name for name in rounds}}


def plot(board: Leaderboard) -> str:
    """SVG of the raw PLCC of the demo's base and rounds, by benchmark and weighted."""
    models = demo_models(board)
    sets = list(board.of(BASE))
    heights = {
        label: [*(board.values(model)[name] for name in sets), board.weighted(model)] for label, model in models.items()
    }
    bars = partial(plcc_bars, names=[*sets, "weighted"], heights=heights)
    return draw(bars, (9.0, 3.0)).replace("currentColor", _GREY)


def main(
    run: Annotated[Path, typer.Option(help="Folder of a finished demo run.")] = Path("runs/demo"),
) -> None:
    """Copies the figures of a demo run into `results/`; `make tables` then writes the READMEs' tables."""
    try:
        rows, board, demo = demo_rows(run), Leaderboard.load(), demo_summary(run)
    except (UserError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--run") from error
    board.with_demo(rows).save()
    write_json(DEMO_FILE, demo)
    Console().print(f"wrote {FILE} ({len(rows)} rows of {run}) and {DEMO_FILE}")


if __name__ == "__main__":
    typer.run(main)
