"""The distortions and the truth of the synthetic benchmarks."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
import skimage.data
from PIL import Image
from skimage.metrics import structural_similarity

from tests.benchmarks.checkpoint import pictures
from tests.benchmarks.checkpoint.pictures import CALIBRATION_CONTENTS, calibrate, measured_quality
from trainer.demo.contents import Split, content
from trainer.demo.truth import quality, severity_of
from trainer.pool.distortions import FAMILIES, LEVELS, TYPES, distort

drawn = cache(content)
"""Drawn once for all distortions, which leave their picture as it is."""


def test_there_are_35_distortion_types_in_eight_families() -> None:
    assert len(TYPES) == 35
    assert sum(len(kinds) for kinds in FAMILIES.values()) == 35
    assert len(FAMILIES) == 8


@pytest.mark.parametrize("kind", list(TYPES))
def test_a_distortion_repeats_itself_and_gets_worse_with_its_level(kind: str) -> None:
    references = [drawn("train", index) for index in range(4)]

    def mean_quality(level: int) -> float:
        damaged = [distort(picture, kind, level, np.random.default_rng(n)) for n, picture in enumerate(references)]
        assert all(one.size == other.size for one, other in zip(damaged, references, strict=True))
        return float(np.mean([measured_quality(one, other) for one, other in zip(damaged, references, strict=True)]))

    qualities = [mean_quality(level) for level in LEVELS]
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] - qualities[-1] > 0.4
    again = [distort(references[0], kind, 3, np.random.default_rng(5)).tobytes() for _ in range(2)]
    assert again[0] == again[1]


@pytest.fixture(scope="module")
def photographs() -> tuple[Image.Image, Image.Image]:
    """One photograph at 1,024 pixels a side and at 112."""
    large = Image.fromarray(skimage.data.astronaut()).resize((1024, 1024), Image.Resampling.LANCZOS)
    return large, large.resize((112, 112), Image.Resampling.BOX)


@pytest.mark.parametrize("kind", list(TYPES))
def test_a_level_is_as_severe_at_a_megapixel_as_at_112_pixels(
    kind: str, photographs: tuple[Image.Image, Image.Image]
) -> None:
    """By SSIM (Wang et al. 2004), with both pictures shown at the same size; haze once took 8 s."""
    large, small = photographs
    began = time.process_time()
    damaged = distort(large, kind, 4, np.random.default_rng(1))
    assert time.process_time() - began < 4
    shown = damaged.resize(small.size, Image.Resampling.BOX)
    likeness = [similarity(shown, small), similarity(distort(small, kind, 4, np.random.default_rng(1)), small)]
    assert likeness[0] == pytest.approx(likeness[1], abs=0.1)


@pytest.mark.parametrize("size", [(113, 112), (300, 200), (150, 600), (40, 30)])
def test_pictures_of_every_shape_are_distorted(size: tuple[int, int]) -> None:
    picture = Image.fromarray(skimage.data.astronaut()).resize(size)
    for kind in TYPES:
        damaged = distort(picture, kind, 5, np.random.default_rng(0))
        assert damaged.size == size
        assert damaged.tobytes() != picture.tobytes()


def similarity(one: Image.Image, other: Image.Image) -> float:
    return float(structural_similarity(np.asarray(one), np.asarray(other), channel_axis=2))


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level 6"):
        distort(Image.new("RGB", (32, 32)), "jpeg", 6, np.random.default_rng(0))


def test_an_untouched_picture_has_the_highest_quality() -> None:
    assert measured_quality(content("train", 1), content("train", 1)) == 5
    assert quality([]) == 5


@pytest.mark.parametrize("kind", ["gaussian_blur", "block_loss"])
def test_the_truths_table_is_what_calibration_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "content", drawn)
    table = [severity_of(kind, level) for level in LEVELS]
    assert table == pytest.approx(calibrate(kind, CALIBRATION_CONTENTS), abs=1e-3)


def test_every_distortion_is_truly_worse_at_a_higher_level() -> None:
    for kind in TYPES:
        severities = [severity_of(kind, level) for level in LEVELS]
        assert severities == sorted(severities)
    assert quality([("jpeg", 1), ("darken", 5)]) < quality([("darken", 5)]) < quality([("jpeg", 1)]) < 5


def test_the_splits_of_contents_share_no_picture() -> None:
    splits: tuple[Split, ...] = ("train", "pool", "benchmark")
    assert len({content(split, index).tobytes() for split in splits for index in range(10)}) == 30
