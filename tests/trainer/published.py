"""Small folders in the layouts in which the field's benchmarks are published.

Images are empty files: reading a benchmark opens none. The labels of KonIQ-10k and AGIQA-3K are extracts of the
published files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import scipy.io

LABELS = Path(__file__).parent / "labels"
SETS = "koniq10k_distributions_sets.csv"
SCORES = "koniq10k_scores_and_distributions.csv"


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def koniq10k(root: Path, *files: str, folder: str = "1024x768") -> Path:
    table = pd.read_csv(LABELS / SETS, dtype={"image_name": str})
    touch(root / folder, table["image_name"])
    for file in files or (SETS,):
        if file == SETS:
            shutil.copy(LABELS / SETS, root)
        else:
            (root / file).parent.mkdir(exist_ok=True)
            _as_scores(table).to_csv(root / file, index=False, quoting=1)
    return root


def _as_scores(table: pd.DataFrame) -> pd.DataFrame:
    """The other label file: votes are counts, MOS is their mean, and the z-scores are in a column of their own."""
    shares = table[[f"c{vote}" for vote in range(1, 6)]]
    counts = shares.mul(table["c_total"], axis=0).round().astype(int)
    mean = counts.mul(np.arange(1, 6), axis=1).sum(axis=1) / table["c_total"]
    scores = pd.concat([table["image_name"], counts, table["c_total"]], axis=1)
    return scores.assign(MOS=mean, SD=table["SD"], MOS_zscore=table["MOS"])


def spaq(root: Path) -> Path:
    names = [f"{number:05d}.jpg" for number in range(1, 31)]
    mos = np.linspace(4, 93, 30)
    touch(root / "TestImage", names)
    (root / "Annotations").mkdir()
    columns = {"Image name": names, "MOS": mos, "Brightness": 50.0, "Colorfulness": 50.0, "Contrast": 50.0}
    table = pd.DataFrame({**columns, "Noisiness": 50.0, "Sharpness": mos / 2 + 20})
    table.to_excel(root / "Annotations" / "MOS and Image attribute scores.xlsx", index=False)
    return root


def kadid10k(root: Path) -> Path:
    rows = [
        (f"I{content:02d}_{kind:02d}_{level:02d}.png", f"I{content:02d}.png", round(4.93 - 0.9 * (level - 1), 2), 0.5)
        for content in range(1, 5) for kind in (1, 2) for level in range(1, 6)
    ]  # fmt: skip
    touch(root / "images", [*(row[0] for row in rows), *{row[1] for row in rows}])
    pd.DataFrame(rows, columns=["dist_img", "ref_img", "dmos", "var"]).to_csv(root / "dmos.csv", index=False)
    return root


def pipal(root: Path) -> Path:
    (root / "Train_Label").mkdir(parents=True)
    for content in range(1, 7):
        names = [f"A{content:04d}_{kind:02d}_00.bmp" for kind in range(8)]
        lines = [f"{name},{1000 + 100 * kind + content:.2f}" for kind, name in enumerate(names)]
        (root / "Train_Label" / f"A{content:04d}.txt").write_text("\n".join(lines) + "\n")
        touch(root, [f"Distortion_{kind % 4 + 1}/{name}" for kind, name in enumerate(names)])
        touch(root / "Train_Ref", [f"A{content:04d}.bmp"])
    return root


def livec(root: Path) -> Path:
    training, names = [f"t{number}.bmp" for number in range(1, 8)], [f"{number}.bmp" for number in range(3, 33)]
    touch(root / "Images" / "trainingImages", training)
    touch(root / "Images", [*names[:-1], "32.JPG"])
    (root / "Data").mkdir()
    cells = np.empty((len(training) + len(names), 1), dtype=object)
    cells[:, 0] = [*training, *names[:-1], "32.JPG"]
    mos = np.linspace(90, 5, len(cells))[None]
    for name, array in (("AllImages", cells), ("AllMOS", mos), ("AllStdDev", np.full_like(mos, 20.0))):
        scipy.io.savemat(root / "Data" / f"{name}_release.mat", {f"{name}_release": array})
    return root


def agiqa3k(root: Path) -> Path:
    touch(root, pd.read_csv(LABELS / "agiqa3k_data.csv")["name"])
    shutil.copy(LABELS / "agiqa3k_data.csv", root / "data.csv")
    return root


def tid2013(root: Path) -> Path:
    rows = [
        (f"{7.0 - 1.5 * (level - 1) - content / 100:.5f}", f"i{content:02d}_{kind:02d}_{level}.bmp")
        for content in (1, 2, 3, 25) for kind in (1, 2) for level in range(1, 6)
    ]  # fmt: skip
    names = [name.upper() if "_02_" in name else name.replace("i", "I") for _, name in rows]
    touch(root / "distorted_images", names)
    (root / "mos_with_names.txt").write_text("".join(f"{mos} {name}\n" for mos, name in rows))
    return root


CSIQ_KINDS = {
    "noise": "awgn/AWGN",
    "blur": "blur/BLUR",
    "jpeg 2000": "jpeg2000/jpeg2000",
    "contrast": "contrast/contrast",
}
CSIQ_ROWS = [
    (content, kind, level, (level - 1) / 5 + number / 100)
    for number, content in enumerate([1600, "aerial_city", "sunset_sparrow"])
    for kind in CSIQ_KINDS
    for level in range(1, 6)
]


def csiq_names() -> list[str]:
    """As `csiq_label.txt` has them."""
    return [f"{content}.{CSIQ_KINDS[kind].rpartition('/')[2]}.{level}.png" for content, kind, level, _ in CSIQ_ROWS]


def csiq(root: Path) -> Path:
    """The workbook as published: several sheets, a title, blanks above and beside the table, 1600 as a number."""
    folders = [CSIQ_KINDS[kind].partition("/")[0] for _, kind, *_ in CSIQ_ROWS]
    touch(root / "dst_imgs", [f"{folder}/{name}" for folder, name in zip(folders, csiq_names(), strict=True)])
    book = openpyxl.Workbook()
    book.active.title = "all_by_distortion"
    sheet = book.create_sheet("all_by_image")
    sheet["A1"] = "DMOS of all images"
    columns = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    rows = [(image, 1, kind, level, 0.1, dmos) for image, kind, level, dmos in CSIQ_ROWS]
    for number, row in enumerate([columns, *rows], 4):
        for column, cell in enumerate(row, 4):
            sheet.cell(number, column, cell)
    book.save(root / "csiq.DMOS.xlsx")
    return root


PUBLISHED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "koniq10k": (koniq10k, SETS),
    "spaq": (spaq, "Annotations/MOS and Image attribute scores.xlsx"),
    "kadid10k": (kadid10k, "dmos.csv"),
    "pipal": (pipal, "Train_Label"),
    "livec": (livec, "Data/AllMOS_release.mat"),
    "agiqa3k": (agiqa3k, "data.csv"),
    "tid2013": (tid2013, "mos_with_names.txt"),
    "csiq": (csiq, "csiq.DMOS.xlsx"),
}
"""Name -> what writes it, and its label file."""
