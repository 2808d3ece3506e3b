"""Labels that are not what was published are refused, and what is missing is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io

from tests.trainer.published import LABELS, PUBLISHED, SCORES, SETS, csiq, koniq10k, livec, spaq, tid2013, touch
from trainer.evaluation.benchmarks.load import load


def rewrite(file: Path, column: str, change: Callable[[pd.Series], object]) -> None:
    table = pd.read_csv(file)
    table[column] = change(table[column])
    table.to_csv(file, index=False)


CSV = {"koniq10k": (SETS, "MOS"), "kadid10k": ("dmos.csv", "dmos"), "agiqa3k": ("data.csv", "mos_quality")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_single_missing_image_is_left_out_and_named(name: str, tmp_path: Path) -> None:
    write, _ = PUBLISHED[name]
    whole = load(write(tmp_path), "all")
    whole.images[3].unlink()
    found = load(tmp_path, "all")
    assert found.ids == [id for id in whole.ids if id != whole.ids[3]]
    assert found.mos.tolist() == np.delete(whole.mos, 3).tolist()
    assert [name.lower() for name in found.missing] == [Path(whole.ids[3]).name.lower()]
    note = next(note for note in found.notes if "missing" in note)
    assert note.lower() == f"1 images missing: {whole.images[3].name}".lower()


@pytest.mark.parametrize("name", PUBLISHED)
def test_many_missing_images_are_refused_and_the_first_named(name: str, tmp_path: Path) -> None:
    write, _ = PUBLISHED[name]
    for image in load(write(tmp_path), "all").images[:7]:
        image.unlink()
    with pytest.raises(ValueError, match=r"names 7 images that do not exist, of \d+: \S+, \S+, \S+, \S+, \S+, \.\.\."):
        load(tmp_path, "all")


def test_only_the_images_of_the_chosen_part_must_be_there(tmp_path: Path) -> None:
    koniq10k(tmp_path)
    kept = set(load(tmp_path, "test").images)
    for image in load(tmp_path, "all").images:
        if image not in kept:
            image.unlink()
    assert len(load(tmp_path).ids) == 9
    with pytest.raises(ValueError, match="names 27 images that do not exist, of 36"):
        load(tmp_path, "all")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_label_file_of_another_length_than_published_is_told(name: str, tmp_path: Path) -> None:
    assert any("were published" in note for note in load(PUBLISHED[name][0](tmp_path), "all").notes)


@pytest.mark.parametrize("name", CSV)
@pytest.mark.parametrize("value", ["", "nan", "inf", "good"])
def test_labels_that_are_no_finite_numbers_are_refused(name: str, value: str, tmp_path: Path) -> None:
    file, column = CSV[name]
    rewrite(PUBLISHED[name][0](tmp_path) / file, column, lambda labels: [*labels[:-1], value])
    with pytest.raises(ValueError, match="1 labels are no finite numbers, first"):
        load(tmp_path)


def test_an_image_that_is_labelled_twice_is_refused_whatever_its_case(tmp_path: Path) -> None:
    file = tid2013(tmp_path) / "mos_with_names.txt"
    file.write_text(file.read_text() + "5.0 I01_01_1.BMP\n")
    with pytest.raises(ValueError, match=r"names i01_01_1\.bmp 2 times"):
        load(tmp_path)


def test_an_image_that_is_labelled_by_two_names_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "labels.csv").write_text("image,mos\na.png,1\nb.png,2\nimages/a.png,3\n")
    with pytest.raises(ValueError, match=r"names \S+images/a\.png 2 times"):
        load(tmp_path)


@pytest.mark.parametrize("name", CSV)
def test_labels_on_another_scale_are_refused_with_both_ranges(name: str, tmp_path: Path) -> None:
    file, column = CSV[name]
    rewrite(PUBLISHED[name][0](tmp_path) / file, column, lambda labels: labels * 10)
    with pytest.raises(ValueError, match=r"the labels run from \S+ to \S+, but \w+'s were published from \S+ to"):
        load(tmp_path)


def test_koniqs_mean_of_votes_is_not_taken_for_its_mos(tmp_path: Path) -> None:
    koniq10k(tmp_path, SCORES)
    votes = pd.read_csv(tmp_path / SCORES).drop(columns="MOS_zscore")
    votes.to_csv(tmp_path / SCORES, index=False)
    with pytest.raises(ValueError, match=r"but koniq10k's were published from 3\.91 to 88\.39"):
        load(tmp_path)


def test_labels_within_the_range_that_fill_little_of_it_were_rescaled(tmp_path: Path) -> None:
    file = spaq(tmp_path) / "Annotations" / "MOS and Image attribute scores.xlsx"
    table = pd.read_excel(file)
    table.assign(MOS=1 + table["MOS"] / 25 + 2).to_excel(file, index=False)
    with pytest.raises(ValueError, match="were they rescaled or turned over"):
        load(tmp_path)


@pytest.mark.parametrize("name", CSV)
def test_labels_that_were_turned_over_within_their_range_are_refused(name: str, tmp_path: Path) -> None:
    file, column = CSV[name]
    rewrite(PUBLISHED[name][0](tmp_path) / file, column, lambda labels: labels.min() + labels.max() - labels)
    with pytest.raises(ValueError, match=r"the labels fall where .* rises, but .* were published rising with quality"):
        load(tmp_path)


def test_a_csiq_file_that_is_mos_already_is_not_turned_again(tmp_path: Path) -> None:
    mos = load(csiq(tmp_path))
    (tmp_path / "csiq.DMOS.xlsx").unlink()
    lines = [f"{image.name} {value}\n" for image, value in zip(mos.images, mos.mos, strict=True)]
    (tmp_path / "csiq_label.txt").write_text("".join(lines))
    with pytest.raises(ValueError, match=r"were published rising with damage\. They have been turned over"):
        load(tmp_path)


def test_spaqs_and_tids_direction_is_checked_too(tmp_path: Path) -> None:
    file = spaq(tmp_path / "spaq") / "Annotations" / "MOS and Image attribute scores.xlsx"
    table = pd.read_excel(file)
    table.assign(MOS=98 - table["MOS"]).to_excel(file, index=False)
    with pytest.raises(ValueError, match="fall where Sharpness rises"):
        load(tmp_path / "spaq")
    file = tid2013(tmp_path / "tid") / "mos_with_names.txt"
    rows = [line.split() for line in file.read_text().splitlines()]
    file.write_text("".join(f"{7.4 - float(mos)} {name}\n" for mos, name in rows))
    with pytest.raises(ValueError, match="level of damage"):
        load(tmp_path / "tid")


def test_lives_labels_must_be_as_many_as_its_images(tmp_path: Path) -> None:
    file = livec(tmp_path) / "Data" / "AllMOS_release.mat"
    mos = scipy.io.loadmat(file)["AllMOS_release"]
    scipy.io.savemat(file, {"AllMOS_release": mos[:, :-1]})
    with pytest.raises(ValueError, match="has 36 labels for the 37 images"):
        load(tmp_path)
    (tmp_path / "Data" / "AllImages_release.mat").unlink()
    with pytest.raises(ValueError, match=r"has no AllImages_release\.mat"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["spaq", "csiq", "livec"])
def test_a_damaged_workbook_or_matlab_file_is_named(name: str, tmp_path: Path) -> None:
    write, file = PUBLISHED[name]
    (write(tmp_path) / file).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match=Path(file).name):
        load(tmp_path)


def test_a_workbook_without_the_columns_is_refused_with_their_names(tmp_path: Path) -> None:
    file = spaq(tmp_path) / "Annotations" / "MOS and Image attribute scores.xlsx"
    pd.read_excel(file).rename(columns={"MOS": "Score"}).to_excel(file, index=False)
    with pytest.raises(ValueError, match="needs a row with the columns Image name, MOS, Sharpness"):
        load(tmp_path)


def test_the_extracts_are_as_published() -> None:
    koniq = pd.read_csv(LABELS / SETS)
    assert (round(koniq["MOS"].min(), 2), round(koniq["MOS"].max(), 2)) == (3.91, 88.39)
    assert set(koniq["set"]) == {"training", "validation", "test"}
    agiqa = pd.read_csv(LABELS / "agiqa3k_data.csv")
    assert (agiqa["mos_quality"].min(), round(agiqa["mos_quality"].max(), 2)) == (0, 4.49)
