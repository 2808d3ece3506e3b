"""pyiqa's lists `meta_info_*Dataset.csv` (Chen and Mo, IQA-PyTorch), beside the folders of its sets.

The columns are image, label, ... or reference, image, label, ...; pyiqa reads them by position, since their names vary.
A label called dmos has no fixed direction (KADID-10k's is higher, CSIQ's lower for better images), so the direction is
looked up by set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError
from trainer.evaluation.benchmarks import csiq, kadid10k, koniq10k, livec, pipal, spaq, tid2013
from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, Witness, damage_levels, quality_levels
from trainer.evaluation.benchmarks.files import ancestor_with, ancestors, find, numbers, read_csv, texts
from trainer.evaluation.benchmarks.splits import official


@dataclass(frozen=True, slots=True)
class _Set:
    name: str
    folders: tuple[str, ...]
    """Candidate image folders below pyiqa's folder of sets; the first existing one is used."""
    scale: Scale | None
    has_levels: bool = False


SETS = {
    "KonIQ10k": _Set("koniq10k", ("koniq10k/1024x768", "koniq10k/512x384"), koniq10k.SCALE),
    "SPAQ": _Set("spaq", ("SPAQ/TestImage",), spaq.SCALE),
    "KADID10k": _Set("kadid10k", ("kadid10k/images",), kadid10k.SCALE, has_levels=True),
    "PIPAL": _Set("pipal", ("PIPAL",), pipal.SCALE),
    "LIVEChallenge": _Set("livec", ("LIVEC",), livec.SCALE),
    "TID2013": _Set("tid2013", ("tid2013/distorted_images",), tid2013.SCALE, has_levels=True),
    "CSIQ": _Set("csiq", ("CSIQ/dst_imgs",), csiq.SCALE, has_levels=True),
    "LIVEIQA": _Set("live", ("LIVEIQA_release2",), Scale(0, 100, lower_is_better=True)),
    "LIVEMD": _Set("livemd", ("LIVEmultidistortiondatabase",), Scale(0, 100, lower_is_better=True)),
    "TID2008": _Set("tid2008", ("tid2008/distorted_images",), Scale(0, 9), has_levels=True),
    "FLIVE": _Set("flive", ("FLIVE_Database/database",), Scale(0, 100)),
}
"""By `meta_info_<key>Dataset.csv`; folders and ranges of `pyiqa/default_dataset_configs.yml`."""
UNIT = Scale(0, 1)
"""PIPAL's Elo ratings as scaled in later lists."""


def read(file: Path, root: Path) -> Labels:
    """Reads a list. Images are searched below the parent folders of the file."""
    table = read_csv(file)
    first = 1 if table.columns[0] in {"ref_name", "hq_name"} else 0
    columns = list(table.columns[first : first + 2])
    key = re.sub(r"^meta_info_|Dataset$", "", file.stem)
    known = SETS.get(key) or _unknown(file, key, columns[1])
    training = [known.name == "livec" and livec.is_training(image) for image in texts(table[columns[0]])]
    table = table[[not dropped for dropped in training]]
    images, values = texts(table[columns[0]]), numbers(table[columns[1]])
    root, folder = _place(file, known, images)
    about_training = [f"{sum(training)} training images dropped"] if any(training) else []
    split = next((column for column in ("official_split", "split") if column in table), None)
    return Labels(
        name=known.name,
        file=file,
        root=root,
        folders=(folder, f"{folder}/*"),
        images=images,
        values=values,
        scale=UNIT if known.name == "pipal" and values.max() <= 1 else known.scale,
        witness=_witness(known, images),
        references=texts(table[table.columns[0]]) if first else None,
        parts=official(table[split]) if split else None,
        notes=[f"pyiqa's list {file.name}, label {columns[1]}, images of {folder}", *about_training],
    )


def _unknown(file: Path, key: str, label: str) -> _Set:
    if label.lower() not in {"mos", "score"}:
        raise UserError(
            f"{file}: the set {key} is unknown, so its label column must be called mos (higher is better), not "
            f"{label}. Known sets: {', '.join(SETS)}"
        )
    return _Set(key.lower(), (), None)


def _place(file: Path, known: _Set, images: Sequence[str]) -> tuple[Path, str]:
    """The folder of sets, and the image folder below it."""
    if not known.folders:
        return ancestor_with(file, images), "."
    found = ((root, folder) for root in ancestors(file) for folder in known.folders if find(root, folder))
    place = next(found, None)
    if place is None:
        raise UserError(f"{file}: no parent folder holds its images in {' or '.join(known.folders)}")
    return place


def _witness(known: _Set, images: Sequence[str]) -> Witness | None:
    if not known.has_levels:
        return None
    return damage_levels(images) if known.scale and known.scale.lower_is_better else quality_levels(images)


LAYOUT = Layout("pyiqa's list", (), read, named=("meta_info_*.csv",))
