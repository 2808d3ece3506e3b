"""Benchmarks are read as they are published, from their folder alone."""

from __future__ import annotations

import os
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.trainer.published import (
    CSIQ_ROWS,
    LABELS,
    PUBLISHED,
    SCORES,
    SETS,
    agiqa3k,
    csiq,
    csiq_names,
    kadid10k,
    koniq10k,
    livec,
    spaq,
    tid2013,
    touch,
)
from trainer.demo.benchmarks import write_set
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.load import load, load_all
from trainer.evaluation.benchmarks.splits import draw

PARTS = ("train", "validation", "test")


def written(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return PUBLISHED[name][0](folder)


def scores(benchmark: Benchmark) -> dict[str, float]:
    return dict(zip(benchmark.ids, benchmark.mos.tolist(), strict=True))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_folder_is_recognised(name: str, tmp_path: Path) -> None:
    found = load(written(name, tmp_path / "anything"), "all")
    assert (found.name, found.root) == (name, tmp_path / "anything")
    assert len(found.ids) == len(found.mos) == len(set(found.ids)) >= 20
    assert all(image.is_file() for image in found.images)
    assert not any("missing" in note for note in found.notes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_folder_around_it_and_the_label_file_in_it_do_as_well(name: str, tmp_path: Path) -> None:
    folder = written(name, tmp_path / "outer" / "inner")
    expected = scores(load(folder, "all"))
    assert scores(load(tmp_path / "outer", "all")) == expected
    file = folder / PUBLISHED[name][1]
    assert file.is_dir() or scores(load(file, "all")) == expected


@pytest.mark.parametrize(
    ("name", "level"), [("kadid10k", r"_(\d+)\.png"), ("tid2013", r"_(\d)\."), ("csiq", r"\.(\d)\.")]
)
def test_less_damage_has_higher_scores_whatever_the_files_direction(name: str, level: str, tmp_path: Path) -> None:
    found = load(written(name, tmp_path))
    levels = pd.Series(found.ids).str.extract(level)[0].astype(int)
    assert pd.Series(found.mos).groupby(levels).mean().is_monotonic_decreasing


def test_both_label_files_of_koniq_give_the_same_scores(tmp_path: Path) -> None:
    published = pd.read_csv(LABELS / SETS)["MOS"].tolist()
    for number, file in enumerate((SETS, SCORES, f"{Path(SCORES).stem}/{SCORES}")):
        folder = koniq10k(tmp_path / str(number), file)
        assert load(folder, "all").mos.tolist() == published


def test_koniqs_official_test_part_is_what_is_evaluated(tmp_path: Path) -> None:
    table = pd.read_csv(LABELS / SETS)
    found = load(koniq10k(tmp_path))
    assert [Path(id).name for id in found.ids] == table["image_name"][table["set"] == "test"].tolist()
    assert "part test (official): 9 of 36 images" in found.notes


def test_the_koniq_file_without_the_official_split_says_so_and_gives_everything(tmp_path: Path) -> None:
    found = load(koniq10k(tmp_path, SCORES))
    assert len(found.ids) == 36
    assert f"{SCORES} has no official split; {SETS} has one" in found.notes
    assert any("MOS_zscore" in note for note in found.notes)


def test_of_both_koniq_files_the_one_with_the_split_is_taken(tmp_path: Path) -> None:
    assert len(load(koniq10k(tmp_path, SCORES, SETS)).ids) == 9


def test_koniqs_small_images_are_found_and_never_mixed_with_the_large(tmp_path: Path) -> None:
    koniq10k(tmp_path, folder="512x384")
    assert {Path(id).parts[0] for id in load(tmp_path, "all").ids} == {"512x384"}
    koniq10k(tmp_path)
    next((tmp_path / "1024x768").iterdir()).unlink()
    found = load(tmp_path, "all")
    assert {Path(id).parts[0] for id in found.ids} == {"1024x768"}
    assert len(found.ids) == 35


def test_lives_seven_training_images_are_dropped(tmp_path: Path) -> None:
    found = load(livec(tmp_path))
    assert len(found.ids) == 30
    assert not any(Path(id).name.startswith("t") for id in found.ids)
    assert found.mos[0] == pytest.approx(np.linspace(90, 5, 37)[7])
    assert "7 training images dropped" in found.notes


def test_agiqas_score_is_that_of_quality_and_prompts_may_hold_commas(tmp_path: Path) -> None:
    found = load(written("agiqa3k", tmp_path))
    assert scores(found)["AttnGAN_normal_060.jpg"] == 0.919776796
    assert scores(found)["glide_normal_057.jpg"] == 0


def test_an_image_of_the_very_name_is_preferred_to_one_of_another_case(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,mos\nA.PNG,1\nB.Png,2\n")
    for name in ("a.png", "A.PNG", "b.png"):
        (tmp_path / name).touch()
    assert load(tmp_path).ids == ["A.PNG", "b.png"]


def test_tids_names_are_found_in_any_case_and_images_are_grouped_by_their_reference(tmp_path: Path) -> None:
    found = load(written("tid2013", tmp_path))
    assert found.ids[0] == "distorted_images/I01_01_1.bmp"
    assert found.ids[5] == "distorted_images/I01_02_1.BMP"
    assert sorted(set(found.references)) == ["I01", "I02", "I03", "I25"]


@pytest.mark.parametrize(("name", "references"), [("kadid10k", 4), ("pipal", 6), ("tid2013", 4), ("csiq", 3)])
def test_sets_made_from_references_name_them(name: str, references: int, tmp_path: Path) -> None:
    found = load(written(name, tmp_path))
    assert len(found.references) == len(found.ids)
    assert len(set(found.references)) == references


def test_pipals_images_are_gathered_from_all_folders(tmp_path: Path) -> None:
    found = load(written("pipal", tmp_path))
    assert {Path(id).parts[0] for id in found.ids} == {f"Distortion_{number}" for number in (1, 2, 3, 4)}
    assert scores(found)["Distortion_2/A0003_05_00.bmp"] == 1503


def test_csiqs_workbook_is_turned_over(tmp_path: Path) -> None:
    found = load(csiq(tmp_path))
    assert found.mos == pytest.approx([1 - dmos for *_, dmos in CSIQ_ROWS])
    assert scores(found)["dst_imgs/awgn/1600.AWGN.1.png"] == 1
    assert "labels inverted, higher is better: 1 - label" in found.notes


@pytest.mark.parametrize("extension", [".png", ""])
def test_csiqs_text_file_gives_the_same(extension: str, tmp_path: Path) -> None:
    expected = scores(load(csiq(tmp_path)))
    (tmp_path / "csiq.DMOS.xlsx").unlink()
    names = [name.removesuffix(".png") + extension for name in csiq_names()]
    lines = [f"{name} {dmos:.3f}\n" for name, (*_, dmos) in zip(names, CSIQ_ROWS, strict=True)]
    (tmp_path / "csiq_label.txt").write_text("".join(lines))
    assert scores(load(tmp_path)) == pytest.approx(expected)


@pytest.mark.parametrize("folder", ["dst_imgs/AWGN", "DST_IMGS/awgn", "dst_imgs", "dst_imgs_all"])
def test_csiqs_folders_may_be_named_otherwise(folder: str, tmp_path: Path) -> None:
    csiq(tmp_path / "as_published")
    expected = load(tmp_path / "as_published")
    (tmp_path / "set" / folder).mkdir(parents=True)
    shutil.copy(tmp_path / "as_published" / "csiq.DMOS.xlsx", tmp_path / "set")
    for image in expected.images:
        image.rename(tmp_path / "set" / folder / image.name)
    assert load(tmp_path / "set").mos.tolist() == expected.mos.tolist()


def test_all_sets_below_a_folder_are_loaded(tmp_path: Path) -> None:
    for name in set(PUBLISHED) - {"livec"}:
        written(name, tmp_path / f"{name}_as_downloaded")
    written("livec", tmp_path / "livec" / "ChallengeDB_release")
    (tmp_path / "notes").mkdir()
    assert {benchmark.name for benchmark in load_all(tmp_path)} == set(PUBLISHED)
    one, other = load_all([tmp_path / "spaq_as_downloaded", tmp_path / "csiq_as_downloaded"])
    assert (one.name, other.name) == ("spaq", "csiq")
    with pytest.raises(ValueError, match="holds several benchmarks; give one of"):
        load(tmp_path)


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [written("kadid10k", tmp_path / name) for name in ("one", "other")]
    with pytest.raises(ValueError, match="several benchmarks have the same name"):
        load_all(folders)


def test_a_folder_without_a_benchmark_is_refused_with_the_known_layouts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no benchmark in") as refused:
        load(tmp_path)
    for name in PUBLISHED:
        assert PUBLISHED[name][1] in str(refused.value)
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "nowhere")


def plain(folder: Path, file: str = "labels.csv") -> Path:
    touch(folder / "images", ["a.png", "b.png"])
    (folder / file).write_text("image,mos\na.png,1\nb.png,2\n")
    return folder


def pyiqas(folder: Path, name: str) -> Path:
    table = pd.read_csv(folder / "kadid10k" / "dmos.csv")
    columns = {"ref_name": table["ref_img"], "dist_name": table["dist_img"], "dmos": table["dmos"]}
    (folder / name).parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(folder / name, index=False)
    return folder / name


def names(path: Path) -> list[str]:
    return [found.name for found in load_all(path, "all")]


def test_a_plain_set_with_its_images_in_a_folder_is_no_other(tmp_path: Path) -> None:
    assert names(plain(tmp_path / "mine")) == ["mine"]


def test_a_set_among_others_is_what_it_is_alone(tmp_path: Path) -> None:
    alone = load(kadid10k(tmp_path / "kadid10k"))
    plain(tmp_path / "mine")
    tid2013(tmp_path / "a" / "tid2013")
    found = {one.name: one for one in load_all(tmp_path)}
    assert sorted(found) == ["kadid10k", "mine", "tid2013"]
    assert (found["kadid10k"].ids, found["kadid10k"].root) == (alone.ids, alone.root)


def test_pyiqas_lists_beside_the_sets_are_read_only_where_they_are_named(tmp_path: Path) -> None:
    kadid10k(tmp_path / "kadid10k")
    lists = [pyiqas(tmp_path, f"{place}meta_info_KADID10kDataset.csv") for place in ("", "meta_info/", "kadid10k/")]
    published = load(tmp_path)
    assert published.references == pd.read_csv(tmp_path / "kadid10k" / "dmos.csv")["ref_img"].tolist()
    assert not any("pyiqa" in note for note in published.notes)
    for file in lists:
        found = load(file)
        assert (found.images, found.mos.tolist()) == (published.images, published.mos.tolist())
        assert any("pyiqa" in note for note in found.notes)


def test_a_table_called_data_is_agiqas_only_with_its_columns(tmp_path: Path) -> None:
    assert names(agiqa3k(tmp_path / "agiqa")) == ["agiqa3k"]
    own = plain(tmp_path / "own", "data.csv")
    assert load(own / "data.csv").name == "data"
    with pytest.raises(ValueError, match=r"data\.csv with name, mos_quality, mos_align \(AGIQA-3K\)"):
        load(own)


@pytest.mark.parametrize("content", [b"when,what\n1,2\n", b"", b"\xff\xfe\x00,\x80"])
def test_a_table_of_another_kind_hides_no_benchmark_below_it(content: bytes, tmp_path: Path) -> None:
    csiq(tmp_path / "csiq")
    (tmp_path / "data.csv").write_bytes(content)
    assert names(tmp_path) == ["csiq"]


def test_a_folder_that_may_not_be_read_hides_no_benchmark_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csiq(tmp_path / "csiq")
    (tmp_path / "lost+found").mkdir()
    listdir = os.listdir

    def guarded(folder: Path) -> list[str]:
        if Path(folder).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", guarded)
    assert names(tmp_path) == ["csiq"]


def test_a_folder_with_two_label_files_of_one_set_is_refused_with_both(tmp_path: Path) -> None:
    koniq10k(tmp_path / "KONIQ")
    image = next((tmp_path / "KONIQ" / "1024x768").iterdir()).name
    (tmp_path / "KONIQ" / "metas").mkdir()
    (tmp_path / "KONIQ" / "metas" / "test_koniq_2k.json").write_text(
        f'[{{"id": "1", "image": "KONIQ/1024x768/{image}", "gt_score": 3.5}}]'
    )
    with pytest.raises(ValueError, match=r"koniq10k by \S+sets\.csv, koniq10k by \S+test_koniq_2k\.json"):
        load_all(tmp_path)
    with pytest.raises(ValueError, match="holds several benchmarks; give one of"):
        load(tmp_path)


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
