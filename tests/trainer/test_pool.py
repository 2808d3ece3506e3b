"""The pool and its distortions."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.demo import truth
from trainer.demo.contents import Split, content
from trainer.demo.truth import CALIBRATION_CONTENTS, calibrate, measured_quality, quality, severity_of
from trainer.pool.distortions import FAMILIES, LEVELS, TYPES, distort
from trainer.pool.pool import Pool, build

drawn = cache(content)
"""Drawn once for all distortions, which leave their picture as it is."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "deeper").mkdir(parents=True)
    content("pool", 0).save(tmp_path / "images" / "a.png")
    content("pool", 1).save(tmp_path / "images" / "deeper" / "b.png")
    content("pool", 0).save(tmp_path / "images" / "same-as-a.png")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    return tmp_path


def made(folder: Path, name: str, seed: int = 0) -> tuple[Pool, list[str]]:
    return build(folder / "images", folder / name, folder / f"{name}.jsonl", variants=4, seed=seed)


def test_a_pool_takes_each_content_once_and_lists_what_it_cannot_read(folder: Path) -> None:
    pool, unreadable = made(folder, "work")
    assert len(pool.images) == 2 * (1 + 4)
    assert [Path(path).name for path in unreadable] == ["broken.jpg"]
    assert {image.source for image in pool.images} == {image.id for image in pool.images if image.kind is None}


def test_the_same_folder_and_seed_give_the_same_pool_and_another_seed_another(folder: Path) -> None:
    ids = [{image.id for image in made(folder, name, seed)[0].images} for name, seed in (("w", 0), ("x", 0), ("y", 1))]
    assert ids[0] == ids[1] != ids[2]


def test_a_pool_is_read_back_as_it_was_built(folder: Path) -> None:
    pool, _ = made(folder, "work")
    assert Pool.load(folder / "work.jsonl").images == pool.images


def test_a_folder_without_images_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no readable image"):
        build(tmp_path, tmp_path / "work", tmp_path / "pool.jsonl", variants=1, seed=0)


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


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level 6"):
        distort(Image.new("RGB", (32, 32)), "jpeg", 6, np.random.default_rng(0))


def test_an_untouched_picture_has_the_highest_quality() -> None:
    assert measured_quality(content("train", 1), content("train", 1)) == 5
    assert quality([]) == 5


@pytest.mark.parametrize("kind", ["gaussian_blur", "block_loss"])
def test_the_truths_table_is_what_calibration_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "content", drawn)
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
