"""Benchmarks are read as they are published, from their folder alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.trainer.published import CSIQ_ROWS, LABELS, PUBLISHED, SCORES, SETS, csiq, csiq_names, koniq10k, livec
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.load import load, load_all


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
    assert f"{SCORES} has no official split, which {SETS} has" in found.notes
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
    assert "labels turned over, higher is better: 1 - label" in found.notes


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
    with pytest.raises(ValueError, match="holds several benchmarks, name one"):
        load(tmp_path)


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [written("kadid10k", tmp_path / name) for name in ("one", "other")]
    with pytest.raises(ValueError, match="several benchmarks have one name"):
        load_all(folders)


def test_a_folder_without_a_benchmark_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no benchmark below") as refused:
        load(tmp_path)
    for name in PUBLISHED:
        assert PUBLISHED[name][1] in str(refused.value)
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "nowhere")
