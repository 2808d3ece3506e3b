"""What is known of models on benchmarks: `leaderboard.json`, from which the README's tables are made.

    python -m tests.benchmarks.leaderboard --run runs/demo

takes in the rows of a finished demo run, in place of all those of the run before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console

from trainer.files import read_json, write_text
from trainer.reporting.averages import relative_gain_percent, weighted_mean

FILE = Path(__file__).with_name("results") / "leaderboard.json"
DEMO = "demo:"
Correlation = Annotated[float, Field(ge=-1, le=1)]
Metric = Literal["plcc", "plcc_fitted", "srcc", "krcc", "rmse"]


class Row(BaseModel):
    """A model on a benchmark. What is not known is None, null in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    """With where it is from: `paper:evoquality-round2`, `demo:base`, `demo:round1`."""
    version: str | None
    """Of the weights, in the store that served them."""
    benchmark: str = Field(min_length=1)
    n: int = Field(ge=1)
    """Images with a readable prediction."""
    plcc: Correlation | None
    plcc_fitted: Correlation | None
    srcc: Correlation | None
    krcc: Correlation | None
    rmse: float | None = Field(ge=0)
    source: str = Field(min_length=1)
    """The publication, or the command that measured it."""


class Leaderboard(BaseModel):
    """One row for a model on a benchmark."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[Row]

    @model_validator(mode="after")
    def _once(self) -> Leaderboard:
        if len({(row.model, row.benchmark) for row in self.rows}) < len(self.rows):
            raise ValueError("a model has two rows for one benchmark")
        return self

    @classmethod
    def load(cls, file: Path = FILE) -> Leaderboard:
        """Raises ValueError if the file is no leaderboard, and says why."""
        try:
            return cls.model_validate(read_json(file))
        except (ValidationError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} is no leaderboard: {error}") from error

    def save(self, file: Path = FILE) -> None:
        """A row a line, so that changes are easily read."""
        rows = ",\n".join(json.dumps(row.model_dump(), allow_nan=False) for row in self.rows)
        write_text(file, f'{{"rows": [\n{rows}\n]}}\n')

    def with_demo(self, rows: Iterable[Row]) -> Leaderboard:
        """With a demo's rows in place of all those of the demo before, which may have had more rounds."""
        return Leaderboard(rows=[*(row for row in self.rows if not row.model.startswith(DEMO)), *rows])

    def models(self, prefix: str) -> list[str]:
        """Those whose names begin so, in the file's order."""
        return list(dict.fromkeys(row.model for row in self.rows if row.model.startswith(prefix)))

    def of(self, model: str) -> dict[str, Row]:
        """Benchmark -> row. Raises KeyError for a model without any."""
        found = {row.benchmark: row for row in self.rows if row.model == model}
        if not found:
            raise KeyError(f"{model} is not on the leaderboard")
        return found

    def values(self, model: str, metric: Metric = "plcc") -> dict[str, float]:
        """Benchmark -> a metric, where it is known."""
        known = {name: getattr(row, metric) for name, row in self.of(model).items()}
        return {name: value for name, value in known.items() if value is not None}

    def weighted(self, model: str, metric: Metric = "plcc") -> float:
        """Mean over the model's benchmarks, weighted by their number of images."""
        return weighted_mean(self.values(model, metric), self._counts(model))

    def gain_percent(self, before: str, after: str, metric: Metric = "plcc") -> float:
        """The paper's headline: see `averages.relative_gain_percent`."""
        return relative_gain_percent(self.values(before, metric), self.values(after, metric), self._counts(before))

    def _counts(self, model: str) -> dict[str, int]:
        return {name: row.n for name, row in self.of(model).items()}


def demo_rows(run: Path) -> list[Row]:
    """The rows of a finished demo run. Raises ValueError if the folder is none."""
    if not (run / "seconds.json").exists():
        raise ValueError(f"{run} is no finished demo run: run `make demo` first, or name one")
    evaluations = sorted((run / "evaluations").glob("round-*.json"), key=_round)
    settings = read_json(run / "settings.json")
    source = f"python -m trainer.demo.run --seed {settings['seed']} --policy {settings['policy']}"
    return [row for file in evaluations for row in _rows(_round(file), read_json(file), source)]


def _round(file: Path) -> int:
    return int(file.stem.removeprefix("round-"))


def _rows(number: int, evaluation: Mapping[str, Any], source: str) -> list[Row]:
    model = f"{DEMO}round{number}" if number else f"{DEMO}base"
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


def main(
    run: Annotated[Path, typer.Option(help="Folder of a finished demo run.")] = Path("runs/demo"),
    file: Annotated[Path, typer.Option(help="The leaderboard.")] = FILE,
) -> None:
    """Takes the demo's rows into the leaderboard; `make tables` then writes the README's tables."""
    try:
        rows, board = demo_rows(run), Leaderboard.load(file)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    board.with_demo(rows).save(file)
    Console().print(f"{len(rows)} rows of {run} are in {file}")


if __name__ == "__main__":
    typer.run(main)
