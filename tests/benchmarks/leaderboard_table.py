"""The leaderboard as the README shows it: models side by side, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.benchmarks.leaderboard import DEMO, Leaderboard
from tests.benchmarks.markdown import markdown

PAPER = {
    "zero-shot": "paper:qwen2.5-vl-7b",
    "round 1": "paper:evoquality-round1",
    "round 2": "paper:evoquality-round2",
}


def demo_models(board: Leaderboard) -> dict[str, str]:
    """Heading -> model: the demo's base and rounds."""
    rounds = board.models(f"{DEMO}round")
    return {"base": f"{DEMO}base", **{f"round {name.removeprefix(f'{DEMO}round')}": name for name in rounds}}


def by_set(board: Leaderboard, models: Mapping[str, str]) -> str:
    """Raw PLCC of models under their headings, the base first; the last one's gain and SRCC beside them."""
    names = list(models.values())
    rows = [_set(board, names, benchmark) for benchmark in board.of(names[0])]
    heading = ["set", "images", *models, "gain", f"SRCC, {list(models)[-1]}"]
    return markdown(heading, [*rows, _weighted(board, names), _gains(board, names)])


def _set(board: Leaderboard, models: Sequence[str], benchmark: str) -> list[str]:
    plcc, srcc = [board.values(model)[benchmark] for model in models], board.values(models[-1], "srcc")[benchmark]
    images = str(board.of(models[-1])[benchmark].n)
    return [benchmark, images, *map(_figure, plcc), _percent(100 * (plcc[-1] / plcc[0] - 1)), _figure(srcc)]


def _weighted(board: Leaderboard, models: Sequence[str]) -> list[str]:
    plcc, srcc = [board.weighted(model) for model in models], board.weighted(models[-1], "srcc")
    images = str(sum(row.n for row in board.of(models[-1]).values()))
    return ["**weighted**", images, *map(_figure, plcc), _percent(100 * (plcc[-1] / plcc[0] - 1)), _figure(srcc)]


def _gains(board: Leaderboard, models: Sequence[str]) -> list[str]:
    """The paper's headline: weighted means of the sets' gains, which are more than the gain of the weighted mean."""
    gains = [board.gain_percent(models[0], model) for model in models[1:]]
    return ["**weighted gain**", "", "", *(f"**{_percent(gain)}**" for gain in gains), "", ""]


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _percent(value: float) -> str:
    return f"{value:+.1f} %"
