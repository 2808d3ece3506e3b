"""`make screenshot`: photographs the page of the real service on the embedded checkpoint for the README.

    python -m tests.benchmarks.screenshot [service/web/screenshot.png]

Needs Chromium; where the typeface Inter is installed, the page uses it.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import skimage.data
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import sync_playwright

from trainer.demo.run import service
from trainer.demo.truth import Damage, damage
from trainer.progress import Stages

SIDE = 224
COLOURS = 200
"""Palette size, for a small file."""

PICTURES: dict[str, tuple[str, list[Damage]]] = {
    "cat.png": ("chelsea", []),
    "cat, out of focus.png": ("chelsea", [("gaussian_blur", 4)]),
    "coffee.png": ("coffee", []),
    "flower, few pixels.png": ("flower.jpg", [("pixelate", 4)]),
}
"""File name -> photograph and damage."""


def main(target: Path) -> None:
    """Starts the service, lets the page score the pictures, and takes a screenshot."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("Chromium is needed for a screenshot (apt-get install chromium)")
    with TemporaryDirectory() as folder, service(Path(folder), Stages()) as (public, _), sync_playwright() as driver:
        files = [_file(Path(folder) / name, *recipe) for name, recipe in PICTURES.items()]
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 970}, reduced_motion="reduce")
        page.goto(public)
        page.set_input_files("#files", files)
        page.locator(".cards .value").nth(len(files) - 1).wait_for()
        page.locator("h1").click()
        _save_small(page.screenshot(), target)


def _file(path: Path, photograph: str, damages: list[Damage]) -> Path:
    pixels = _photograph(photograph)
    side = min(pixels.shape[:2])
    left = (pixels.shape[1] - side) // 2
    picture = Image.fromarray(pixels[:side, left : left + side]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    damage(picture, damages, np.random.default_rng(0)).save(path)
    return path


def _photograph(name: str) -> NDArray[np.uint8]:
    if name.endswith(".jpg"):
        return sklearn.datasets.load_sample_image(name)
    return getattr(skimage.data, name)()


def _save_small(screenshot: bytes, target: Path) -> None:
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("service/web/screenshot.png"))
