"""`make checkpoint`: makes the embedded checkpoint again from nothing.

    python -m trainer.demo.recipe [--out trainer/demo/checkpoint] [--contents 4000] ...

Pictures with their ground truth, then the vision tower (`tower.py`), then both answers (`teach.py`). About half an
hour on two idle cores with bfloat16 arithmetic, several times that without.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from trainer.demo import teach, tower
from trainer.demo.architecture import build_model, build_processor, save_checkpoint
from trainer.demo.pictures import Pictures, make_pictures

HELD_BACK = 1200
"""Pictures, of contents of their own, on which the tower's progress is shown."""
TUNED_CONTENTS = range(6000, 7100)
"""Contents whose pictures the answers are tuned on: the tower must not have learnt them by heart."""


def main(
    out: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = Path("trainer/demo/checkpoint"),
    contents: Annotated[int, typer.Option(help="Undamaged pictures; 12 damaged ones are made of each.")] = 4200,
    tower_steps: Annotated[int, typer.Option(help="Steps of 96 pictures for the vision tower.")] = 3300,
    answer_steps: Annotated[int, typer.Option(help="Steps of 32 scores and 64 pairs for both answers.")] = 350,
    seed: Annotated[int, typer.Option(help="The seed of weights and batches.")] = 0,
) -> None:
    """Trains the embedded checkpoint."""
    print(f"making {contents * 12} pictures ...")
    pictures = make_pictures("train", range(contents), os.cpu_count() or 1)
    taught, held_back = _rows(pictures, 0, -HELD_BACK), _rows(pictures, -HELD_BACK, None)
    processor = build_processor()
    model = build_model(processor, seed)
    with Progress() as progress:
        srcc = tower.pretrain(model.model.visual, taught, held_back, steps=tower_steps, seed=seed, progress=progress)
        progress.console.print(f"vision tower: SRCC {srcc:.3f} on {HELD_BACK} pictures of unseen contents")
        fresh = make_pictures("train", TUNED_CONTENTS, os.cpu_count() or 1)
        teach.tune(model, processor, fresh, teach.confounded(fresh), steps=answer_steps, seed=seed, progress=progress)
    save_checkpoint(model, processor, out)
    print(f"wrote {out}")


def _rows(pictures: Pictures, start: int, stop: int | None) -> Pictures:
    return Pictures(*(getattr(pictures, field.name)[start:stop] for field in fields(pictures)))


if __name__ == "__main__":
    typer.run(main)
