"""The script for GPUs runs at toy dimensions, and counts as torch counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.gpu_step import random_model, tiny_config, true_config
from tests.benchmarks.train.passes import (
    ANSWER,
    PROMPT,
    VISUAL_TOKENS,
    Prefix,
    forward_flops,
    random_answers,
    random_prompt,
    repeated,
    shared,
)
from trainer.training.logprobs import AnswerLogprobs

SHAPE = {"patches": 4 * VISUAL_TOKENS, "prompt": PROMPT, "answer": ANSWER}


def test_every_row_is_measured_and_no_engine_is_needed(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code = (
        "import sys; from pathlib import Path; from tests.benchmarks.gpu_step import main; "
        "main(tiny=True, images=1, out=Path(sys.argv[1])); assert 'vllm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], check=True, timeout=120)
    rows = json.loads(out.read_text())
    assert len({(row["policy"], row["prefix"], row["samples"]) for row in rows}) == 8
    assert all(row["seconds"] > 0 and 0 < row["peak_share"] < 1 for row in rows)


@pytest.mark.parametrize("prefix", ["shared", "repeated"])
def test_floating_point_operations_are_those_that_torch_counts(prefix: Prefix) -> None:
    config, samples = tiny_config(), 4
    model = random_model(config, "cpu", torch.float32)
    prompt, answers = random_prompt(config), random_answers(config, samples)
    logprobs = AnswerLogprobs(model.model.language_model, model.lm_head)
    shared(model, logprobs, prompt, answers, vision_gradient=True)  # which checks itself the first time
    with FlopCounterMode(display=False) as counter:
        if prefix == "shared":
            shared(model, logprobs, prompt, answers, vision_gradient=True)
        else:
            repeated(model, prompt, answers)
    products = counter.get_flop_counts()["Global"]
    linear = sum(flops for operation, flops in products.items() if "attention" not in str(operation))
    counted = forward_flops(config, prefix, samples=samples, **SHAPE)
    assert counted.vision + counted.language + counted.head == pytest.approx(linear, rel=0.01)


def test_the_true_dimensions_are_those_of_the_7b_model() -> None:
    with torch.device("meta"):
        model = random_model(true_config(), "meta", torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_292_166_656
