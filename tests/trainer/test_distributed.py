"""Two processes under torchrun (gloo, on CPU) against one: the same steps, one of them skipped because the image of one
process is not finite, and each resumes what the other saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.trainer.learning import main
from tests.trainer.vision_models import SHAPES
from trainer.training.passes import MOST_TOKENS

KINDS = ["lora", "full"]
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process's run, then two processes', which resume the one's checkpoint, then one's, which resumes theirs."""
    path = tmp_path_factory.mktemp("learning")
    SHAPES["embedded"](path / "checkpoint")
    main(path, "one", "nobody", KINDS)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.trainer.learning", str(path), "two", "one", *KINDS,
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    main(path, "again", "two", KINDS)
    return path


def weights(file: Path) -> Weights:
    return torch.load(file, weights_only=True)["policy"]


def apart(one: Weights, other: Weights) -> float:
    """The Euclidean distance of two sets of weights."""
    assert one.keys() == other.keys()
    return float(sum((one[name].double() - other[name].double()).square().sum() for name in one) ** 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_move_the_weights_as_one_does(folder: Path, kind: str) -> None:
    steps = [weights(folder / f"{kind}-{name}.pt") for name in ("one", "one-end", "two-end")]
    assert apart(steps[1], steps[2]) < 1e-3 * apart(steps[0], steps[1])


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_tell_the_same_figures(folder: Path, kind: str) -> None:
    one, two = (json.loads((folder / f"{kind}-{name}.json").read_text()) for name in ("one", "two"))
    assert [step["images_trained"] for step in one] == [5, 5, 5]
    for step, same in zip(one, two, strict=True):
        assert step == pytest.approx(same, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_hold_half_of_the_weights_each_and_fit_the_same_passes(folder: Path, kind: str) -> None:
    one, two = (json.loads((folder / f"{kind}-{name}-fit.json").read_text()) for name in ("one", "two"))
    assert 0.49 < two["held"] / one["held"] < 0.55
    assert (two["tokens_per_pass"], two["passes"]) == (one["tokens_per_pass"], one["passes"]) == (MOST_TOKENS, 1)
    assert two["gradient_checkpointing"] == "on"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resumed", ["two-resumed", "again-resumed"])
def test_a_checkpoint_is_resumed_by_another_number_of_processes(folder: Path, kind: str, resumed: str) -> None:
    steps = [weights(folder / f"{kind}-{name}.pt") for name in ("one", "one-end", resumed)]
    assert apart(steps[1], steps[2]) < 1e-3 * apart(steps[0], steps[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["handed-over", "checkpoint"])
def test_two_processes_write_what_one_writes(folder: Path, kind: str, what: str) -> None:
    one, two = (folder / f"{kind}-{name}-{what}" for name in ("one", "two"))
    assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}
    [file] = one.glob("*.safetensors")
    first, second = load_file(file), load_file(two / file.name)
    assert apart(first, second) < 1e-4 * apart(first, {name: torch.zeros(()) for name in first})


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_read_back_what_they_wrote(folder: Path, kind: str) -> None:
    for name in ("one", "two"):
        found = json.loads((folder / f"{kind}-{name}-compared.json").read_text())
        assert found["apart"] < 1e-4 and found["kept"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_float32_weights_move_as_they_do_in_float32(folder: Path, kind: str) -> None:
    main(folder, "half", "nobody", [kind], "bfloat16")
    moves = [
        torch.cat([(after[name] - before[name]).flatten() for name in before])
        for before, after in (
            (weights(folder / f"{kind}-{name}.pt"), weights(folder / f"{kind}-{name}-end.pt"))
            for name in ("one", "half")
        )
    ]
    assert {move.dtype for move in moves} == {torch.float32}
    assert torch.cosine_similarity(*moves, dim=0) > 0.8  # Adam moves a weight by its gradient's sign, however small


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(folder: Path) -> None:
    assert all("lora_" in name for name in weights(folder / "lora-two.pt"))
