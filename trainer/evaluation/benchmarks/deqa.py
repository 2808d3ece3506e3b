"""The lists of DeQA-Score (You et al. 2025, arXiv 2501.11561), which the field tests on: [{id, image, gt_score}].

Images are named relative to the folder of all its sets, such as `KONIQ/images/10004473376.jpg`. A list does not say
which direction its scores have, so that is inferred from the levels of damage where names have them.

All images of a list are used, so that results are comparable: EvoQuality's counts are 2,010 images of KonIQ-10k, whose
official test part has 2,015, and 1,169 of LIVE in the Wild, which includes its seven training images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from service.files import read_text
from trainer.errors import UserError
from trainer.evaluation.benchmarks import koniq10k, livec
from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, damage_levels, quality_levels
from trainer.evaluation.benchmarks.checks import direction
from trainer.evaluation.benchmarks.files import ancestor_with
from trainer.evaluation.benchmarks.splits import NAMES


@dataclass(frozen=True, slots=True)
class _Set:
    name: str
    separator: str = ""
    """Separator after the reference's part of an image name, in sets made from references."""
    has_levels: bool = False


SETS = {
    "koniq": _Set("koniq10k"),
    "spaq": _Set("spaq"),
    "kadid10k": _Set("kadid10k", "_", has_levels=True),
    "pipal": _Set("pipal", "_"),
    "live-wild": _Set("livec"),
    "agiqa3k": _Set("agiqa3k"),
    "tid2013": _Set("tid2013", "_", has_levels=True),
    "csiq": _Set("csiq", ".", has_levels=True),
}
"""First folder of the image names -> set."""


def read(file: Path, root: Path) -> Labels:
    """Reads a list. `root` is the innermost parent folder that holds the images."""
    entries = _entries(file)
    images = [str(entry.get("image", entry.get("img_path"))) for entry in entries]
    known = SETS.get(PurePosixPath(images[0]).parts[0].lower(), _Set(file.stem))
    names = [PurePosixPath(image).name for image in images]
    parts = _parts(file, len(images))
    labels = Labels(
        name=known.name,
        file=file,
        root=ancestor_with(file, images),
        folders=(".",),
        images=images,
        values=np.array([float(entry["gt_score"]) for entry in entries]),
        witness=quality_levels(images) if known.has_levels else None,
        references=[name.partition(known.separator)[0].upper() for name in names] if known.separator else None,
        parts=parts,
        notes=[f"DeQA-Score's list {file.name}", *_about(known.name, images, parts)],
    )
    return _turned(labels) if direction(labels) < 0 else labels


def _entries(file: Path) -> list[dict[str, Any]]:
    entries = json.loads(read_text(file))
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise UserError(f"{file} is not a list of DeQA-Score: expected [{{id, image, gt_score}}, ...]")
    return entries


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and "gt_score" in entry and ("image" in entry or "img_path" in entry)


def _about(name: str, images: Sequence[str], parts: Sequence[str] | None) -> list[str]:
    """Differences between the list and the published set."""
    notes = []
    if name == "koniq10k" and parts and parts[0] == "test" and len(images) != koniq10k.TEST:
        notes.append(f"{len(images):,} images; the official test part has {koniq10k.TEST:,}")
    if name == "livec" and (training := sum(map(livec.is_training, images))):
        notes.append(f"{training} training images of its observers are among the {len(images):,}")
    return notes


def _parts(file: Path, count: int) -> list[str] | None:
    part = NAMES.get(file.stem.partition("_")[0].lower())
    return [part] * count if part else None


def _turned(labels: Labels) -> Labels:
    scale = Scale(float(labels.values.min()), float(labels.values.max()), lower_is_better=True)
    note = "its gt_score rises with damage"
    return replace(labels, scale=scale, witness=damage_levels(labels.images), notes=[*labels.notes, note])


LAYOUT = Layout("DeQA-Score's list", ("metas/test_*.json",), read, named=("*.json",))
