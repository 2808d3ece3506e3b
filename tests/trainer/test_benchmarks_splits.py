"""Parts of a benchmark: official where there are some, else drawn so that no reference is in two."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from tests.trainer.published import LABELS, PUBLISHED, SETS, koniq10k, spaq
from trainer.demo.benchmarks import write_set
from trainer.evaluation.benchmarks.load import load
from trainer.evaluation.benchmarks.splits import draw

PARTS = ("train", "validation", "test")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parts_are_everything_and_share_no_image(name: str, tmp_path: Path) -> None:
    folder = PUBLISHED[name][0](tmp_path)
    parts = [load(folder, part).ids for part in PARTS]
    assert sorted(id for part in parts for id in part) == sorted(load(folder, "all").ids)
    assert all(parts)


@pytest.mark.parametrize("name", ["kadid10k", "pipal", "tid2013", "csiq"])
@pytest.mark.parametrize("seed", range(5))
def test_no_reference_is_in_two_parts(name: str, seed: int, tmp_path: Path) -> None:
    folder = PUBLISHED[name][0](tmp_path)
    parts = [set(load(folder, part, seed=seed).references) for part in PARTS]
    assert all(one.isdisjoint(other) for one, other in combinations(parts, 2))


def test_a_seed_gives_the_same_part_whatever_the_order_of_the_labels_and_another_seed_another() -> None:
    groups = [f"reference {number % 25}" for number in range(500)]
    first, again = draw(groups, seed=1), draw(groups[::-1], seed=1)
    assert {groups[row] for row in first["test"]} == {groups[::-1][row] for row in again["test"]}
    assert {groups[row] for row in first["test"]} != {groups[row] for row in draw(groups, seed=2)["test"]}


def test_what_is_drawn_has_koniqs_proportions() -> None:
    parts = draw([str(number) for number in range(1000)], seed=0)
    assert [len(parts[part]) for part in PARTS] == [700, 100, 200]


def test_a_drawn_part_says_how(tmp_path: Path) -> None:
    folder = spaq(tmp_path)
    assert "part test (drawn by image with seed 3): 6 of 30 images" in load(folder, "test", seed=3).notes
    assert load(folder, "test").ids == load(folder, "test").ids != load(folder, "test", seed=3).ids


def test_a_part_does_not_depend_on_which_images_are_missing(tmp_path: Path) -> None:
    folder = spaq(tmp_path)
    test, train = load(folder, "test").ids, load(folder, "train")
    train.images[0].unlink()
    assert load(folder, "test").ids == test


def test_official_parts_are_kept(tmp_path: Path) -> None:
    folder, lines = koniq10k(tmp_path), (LABELS / SETS).read_text().splitlines()[1:]
    for part, name in zip(PARTS, ("training", "validation", "test"), strict=True):
        expected = [line.partition(",")[0] for line in lines if line.endswith(name)]
        assert [image.name for image in load(folder, part, seed=9).images] == expected


def test_two_references_cannot_be_parted_into_three() -> None:
    with pytest.raises(ValueError, match="cannot be drawn from 2 references"):
        draw(["a", "a", "b"], seed=0)


def test_the_demos_benchmarks_name_their_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.demo.benchmarks.CONTENTS", 3)
    write_set(tmp_path / "noise", "noise", first_content=40)
    found = load(tmp_path / "noise")
    assert found.references == [image.name[:3] for image in found.images]
    assert sorted(set(found.references)) == ["040", "041", "042"]
