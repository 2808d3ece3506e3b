"""The supervised demo checkpoint, which the stacking ablation starts from (the paper starts from VisualQuality-R1).

    python -m tests.benchmarks.ablations.supervised DIR

The embedded checkpoint, its scores tuned on the true quality of `train` pictures of two families of distortions; the
benchmarks of all other families are out of its domain. Comparisons are not taught.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rich.progress import Progress
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from tests.benchmarks.ablations.arms import DOMAIN
from trainer.demo.benchmarks import SETS
from trainer.demo.recipe import tune
from trainer.demo.run import CHECKPOINT
from trainer.demo.truth import make_pictures

CONTENTS = range(7200, 7260)
"""Contents that no other step of the recipe has seen."""
STEPS, LEARNING_RATE = 12, 3e-4
"""Little, so that something is left to add: 100 steps at 1e-3 bring the other families to a PLCC of 0.67, where two
rounds from the embedded checkpoint end."""


def make(directory: Path, *, contents: range = CONTENTS, steps: int = STEPS, seed: int = 0) -> None:
    """Writes the checkpoint."""
    kinds = [kind for name in DOMAIN for kind in SETS[name]]
    pictures = make_pictures("train", contents, os.cpu_count() or 1, kinds)
    processor = Qwen2_5_VLProcessor.from_pretrained(CHECKPOINT)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype="float32")
    with Progress() as progress:
        tune(
            model, processor, pictures, pictures.quality,
            steps=steps, learning_rate=LEARNING_RATE, pairs=False, seed=seed, progress=progress,
        )  # fmt: skip
    model.save_pretrained(directory)
    for file in CHECKPOINT.glob("*.json"):  # a hot swap takes weights alone: all else has to stay as it is
        shutil.copy(file, directory)
    shutil.copy(CHECKPOINT / "chat_template.jinja", directory)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
