"""`make bench-scale`: which figures miss their bars, and the measuring at sizes that take no time."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.benchmarks.scale import __main__ as scale
from tests.benchmarks.scale import logits
from tests.benchmarks.scale.logits import peak, plain_logprobs
from tests.benchmarks.train.memory import compare, made
from trainer.files import read_json
from trainer.training.chunked_head import token_logprobs


@pytest.mark.parametrize(
    ("figures", "holds"),
    [
        ({"logits": {"plain_over_chunked": 7.9}}, False),
        ({"logits": {"plain_over_chunked": 8.0}, "bf16": {"merge_kept": 0.96}}, True),
        ({"bf16": {"shared_prefix_taken": False}}, False),
        ({"recipes": [{"name": "7B", "gpu_gib": 79, "computed_gib": 79.1}]}, False),
        ({"recipes": [{"name": "7B", "gpu_gib": 79, "computed_gib": 60.0}]}, True),
    ],
)
def test_a_figure_that_misses_its_bar_is_told(figures: dict, holds: bool) -> None:
    assert all(held for *_, held in scale.held(figures)) == holds


def test_parts_are_measured_alone_and_others_figures_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "OUT", tmp_path / "scale.json")
    assert "logits" in scale.parts()
    said = Console(file=io.StringIO())
    for ratio, code in ((9.0, 0), (2.0, 1)):
        monkeypatch.setattr(logits, "measure", lambda ratio=ratio: {"plain_over_chunked": ratio})
        assert scale.main(["logits"], said) == code
    assert read_json(tmp_path / "scale.json") == {"logits": {"plain_over_chunked": 2.0}}


def test_the_plain_heads_memory_grows_with_the_tokens_and_the_chunked_ones_hardly() -> None:
    weights = torch.randn(200_000, 4)
    plain, chunked = (
        [peak(head, weights, tokens) for tokens in (50, 100)] for head in (plain_logprobs, token_logprobs)
    )
    assert plain[1] == pytest.approx(2 * plain[0], rel=0.05)
    assert chunked[1] < 1.05 * chunked[0]


def test_a_pass_has_the_same_gradients_both_ways(tmp_path: Path) -> None:
    found = compare(made(8_192, tmp_path), 8_192, 300)
    assert found.chunked < found.plain
