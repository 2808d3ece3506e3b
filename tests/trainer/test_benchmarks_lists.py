"""Lists of images that others publish, or write: DeQA-Score's, pyiqa's, a plain CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io

from tests.trainer.published import (
    CSIQ_ROWS,
    LABELS,
    PUBLISHED,
    SCORES,
    SETS,
    csiq,
    csiq_names,
    kadid10k,
    koniq10k,
    livec,
    pipal,
    spaq,
    tid2013,
    touch,
)
from trainer.evaluation.benchmarks.load import load, load_all

CSV = {"koniq10k": (SETS, "MOS"), "kadid10k": ("dmos.csv", "dmos"), "agiqa3k": ("data.csv", "mos_quality")}


def deqa(root: Path, file: str, scores: dict[str, float]) -> Path:
    """A list and its images, below the folder of all sets."""
    touch(root, scores)
    entries = [{"id": f"{name}->{score}", "image": name, "gt_score": score} for name, score in scores.items()]
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=4))
    return path


def test_deqas_list_is_read_and_its_root_found_above_it(tmp_path: Path) -> None:
    images = {f"KONIQ/images/{number}.jpg": 1 + number / 10 for number in range(30)}
    file = deqa(tmp_path / "Data-DeQA-Score", "KONIQ/metas/test_koniq_2k.json", images)
    found = load(file)
    assert (found.name, found.root) == ("koniq10k", tmp_path / "Data-DeQA-Score")
    assert dict(zip(found.ids, found.mos.tolist(), strict=True)) == images
    assert found.references is None
    assert "DeQA-Score's list test_koniq_2k.json" in found.notes


def test_deqas_folder_gives_the_test_lists_of_all_its_sets(tmp_path: Path) -> None:
    deqa(tmp_path, "KONIQ/metas/test_koniq_2k.json", {f"KONIQ/images/{n}.jpg": float(n) for n in range(5)})
    deqa(tmp_path, "KONIQ/metas/train_koniq_7k.json", {f"KONIQ/images/{n}.jpg": float(n) for n in range(5, 9)})
    deqa(tmp_path, "LIVE-WILD/metas/test_livew_1k.json", {f"LIVE-WILD/images/{n}.bmp": float(n) for n in range(5)})
    assert [(found.name, len(found.ids)) for found in load_all(tmp_path)] == [("koniq10k", 5), ("livec", 5)]


def test_deqas_lists_are_taken_whole_and_tell_what_sets_them_apart(tmp_path: Path) -> None:
    koniq = deqa(tmp_path, "KONIQ/metas/test_koniq_2k.json", {f"KONIQ/images/{n}.jpg": float(n) for n in range(2010)})
    assert "2,010 images; the official test part has 2,015" in load(koniq).notes
    live = [*(f"LIVE-WILD/images/trainingImages/t{n}.bmp" for n in range(1, 8)), "LIVE-WILD/images/3.bmp"]
    found = load(deqa(tmp_path, "LIVE-WILD/metas/test_livew_1k.json", dict.fromkeys(live, 50.0)))
    assert found.ids == live
    assert "7 training images of its observers are among the 8" in found.notes


def test_deqas_training_list_has_no_test_part(tmp_path: Path) -> None:
    file = deqa(tmp_path, "SPAQ/metas/train_spaq_9k.json", {f"SPAQ/images/{n}.jpg": float(n) for n in range(5)})
    assert len(load(file, "train").ids) == len(load(file).ids) == 5
    with pytest.raises(ValueError, match="has no part test; it has train"):
        load(file, "test")


@pytest.mark.parametrize("dmos", [True, False])
def test_deqas_csiq_list_is_higher_for_better_whichever_way_it_was_written(dmos: bool, tmp_path: Path) -> None:
    rows = zip(csiq_names(), CSIQ_ROWS, strict=True)
    file = deqa(
        tmp_path,
        "CSIQ/metas/test_csiq_866.json",
        {f"CSIQ/images/dst_imgs/{n.split('.')[1]}/{n}": (d if dmos else 1 - d) for n, (*_, d) in rows},
    )
    found = load(file)
    first, last = (pd.Series(found.ids).str.endswith(f".{level}.png").to_numpy() for level in (1, 5))
    assert found.mos[first].min() > found.mos[last].max()
    assert sorted(set(found.references)) == ["1600", "AERIAL_CITY", "SUNSET_SPARROW"]
    assert ("its gt_score rises with damage" in found.notes) == dmos


def test_a_deqa_list_without_its_images_says_where_they_were_looked_for(tmp_path: Path) -> None:
    file = deqa(tmp_path / "one", "KONIQ/metas/test_koniq_2k.json", {"KONIQ/images/1.jpg": 1.0})
    (tmp_path / "one/KONIQ/images/1.jpg").unlink()
    with pytest.raises(ValueError, match=r"lists images such as KONIQ/images/1.jpg, which are not below"):
        load(file)


@pytest.mark.parametrize(
    "content", ['{"id": 1}', "[]", '[{"image": "a.png"}]', "[", '[{"image": "a", "gt_score": null}]']
)
def test_what_is_no_deqa_list_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(ValueError, match=r"list\.json"):
        load(tmp_path / "list.json")


def meta(root: Path, name: str, table: pd.DataFrame) -> Path:
    """pyiqa's list of a set, beside the sets' folders."""
    (root / "meta_info").mkdir(parents=True, exist_ok=True)
    file = root / "meta_info" / f"meta_info_{name}Dataset.csv"
    table.to_csv(file, index=False)
    return file


def test_pyiqas_list_without_references_has_the_official_split(tmp_path: Path) -> None:
    published = load(koniq10k(tmp_path / "koniq10k", folder="512x384"))
    table = pd.read_csv(tmp_path / "koniq10k" / "koniq10k_distributions_sets.csv")
    columns = {"img_name": table["image_name"], "mos": table["MOS"], "std": table["SD"]}
    numbers, words = ({"training": one, "validation": two, "test": three} for one, two, three in (
        (0, 1, 2), ("train", "val", "test"),
    ))  # fmt: skip
    for split in ({"split": table["set"].map(numbers)}, {"official_split": table["set"].map(words)}):
        found = load(meta(tmp_path, "KonIQ10k", pd.DataFrame({**columns, **split})))
        assert found.name == "koniq10k"
        assert [image.name for image in found.images] == [image.name for image in published.images]
        assert found.mos.tolist() == published.mos.tolist()


def test_pyiqas_dmos_is_turned_for_csiq_alone(tmp_path: Path) -> None:
    csiq(tmp_path / "CSIQ")
    names, dmos = csiq_names(), [dmos for *_, dmos in CSIQ_ROWS]
    references = [f"{name.split('.')[0]}.png" for name in names]
    found = load(meta(tmp_path, "CSIQ", pd.DataFrame({"ref_name": references, "dist_name": names, "dmos": dmos})))
    assert found.mos == pytest.approx([1 - value for value in dmos])
    assert found.references == references
    table = pd.read_csv(kadid10k(tmp_path / "kadid10k") / "dmos.csv")
    columns = {"ref_name": table["ref_img"], "dist_name": table["dist_img"], "dmos": table["dmos"], "std": table["var"]}
    assert load(meta(tmp_path, "KADID10k", pd.DataFrame(columns))).mos.tolist() == table["dmos"].tolist()


def test_pyiqas_lists_of_live_challenge_pipal_and_tid_are_those_sets(tmp_path: Path) -> None:
    expected = load(livec(tmp_path / "LIVEC"))
    names = [*(f"t{number}.bmp" for number in range(1, 8)), *(image.name for image in expected.images)]
    found = load(
        meta(tmp_path, "LIVEChallenge", pd.DataFrame({"img_name": names, "mos": [50.0] * 7 + list(expected.mos)}))
    )
    assert (found.name, found.mos.tolist()) == ("livec", expected.mos.tolist())
    assert "7 training images dropped" in found.notes
    for name, write, folder, header in (
        ("PIPAL", pipal, "PIPAL", ("hq_name", "dist_name", "elo_score")),
        ("TID2013", tid2013, "tid2013", ("ref_name", "dist_name", "mos")),
    ):
        expected = load(write(tmp_path / folder))
        rows = zip(expected.references, (image.name for image in expected.images), expected.mos, strict=True)
        found = load(meta(tmp_path, name, pd.DataFrame(rows, columns=header)))
        assert (found.name, found.images) == (expected.name, expected.images)
        assert found.mos.tolist() == expected.mos.tolist()


def test_pipals_ratings_may_be_scaled_to_one_in_pyiqas_list(tmp_path: Path) -> None:
    expected = load(pipal(tmp_path / "PIPAL"))
    names, scaled = [image.name for image in expected.images], (expected.mos - 917) / (1836 - 917)
    table = pd.DataFrame({"hq_name": expected.references, "dist_name": names, "scaled_elo_score": scaled})
    assert load(meta(tmp_path, "PIPAL", table)).mos == pytest.approx(scaled)


@pytest.mark.parametrize("content", ["img_name,mos\n", "img_name\na.jpg\n", ""])
def test_what_is_no_pyiqa_list_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "meta_info_PIPALDataset.csv").write_text(content)
    with pytest.raises(ValueError, match=r"meta_info_PIPALDataset\.csv"):
        load(tmp_path / "meta_info_PIPALDataset.csv")


def test_a_pyiqa_list_of_an_unknown_set_must_say_that_higher_is_better(tmp_path: Path) -> None:
    touch(tmp_path / "mine", ["a.png", "b.png", "c.png"])
    names = ["mine/a.png", "mine/b.png", "mine/c.png"]
    assert load(meta(tmp_path, "Mine", pd.DataFrame({"img_name": names, "mos": [1, 2, 3]}))).name == "mine"
    with pytest.raises(ValueError, match="its label column must be called mos"):
        load(meta(tmp_path, "Mine", pd.DataFrame({"img_name": names, "dmos": [1, 2, 3]})))


def test_pyiqas_list_without_its_images_says_which_folder_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="koniq10k/1024x768 or koniq10k/512x384"):
        load(meta(tmp_path, "KonIQ10k", pd.DataFrame({"img_name": ["a.jpg"], "mos": [50]})))


@pytest.mark.parametrize("place", ["images", "."])
@pytest.mark.parametrize("column", ["mos", "score"])
def test_a_plain_csv_is_read_with_images_beside_it_or_below(place: str, column: str, tmp_path: Path) -> None:
    touch(tmp_path / "mine" / place, ["001.png", "002.png"])
    (tmp_path / "mine" / "labels.csv").write_text(f"\ufeffimage, {column}\n001.png,1.5\n002.png,2\n", encoding="utf-8")
    found = load(tmp_path / "mine")
    assert (found.name, found.mos.tolist(), found.references) == ("mine", [1.5, 2], None)
    assert [image.name for image in found.images] == ["001.png", "002.png"]


def test_a_plain_csv_of_another_name_is_named_by_its_file(tmp_path: Path) -> None:
    touch(tmp_path / "sub", ["A.PNG", "b.png"])
    (tmp_path / "phones.csv").write_text("image,score\nsub\\a.png,1\nsub/b.png,2\n")
    found = load(tmp_path / "phones.csv")
    assert (found.name, found.ids) == ("phones", ["sub/A.PNG", "sub/b.png"])


def test_a_plain_csv_may_name_references_and_parts(tmp_path: Path) -> None:
    touch(tmp_path / "images", ["a.png", "b.png", "c.png"])
    rows = ["image,mos,reference,split", "a.png,1,x,training", "b.png,2,y,test", "c.png,3,y,test"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert load(tmp_path, "all").references == ["x", "y", "y"]
    assert load(tmp_path).mos.tolist() == [2, 3]
    (tmp_path / "labels.csv").write_text("image,mos,split\na.png,1,holdout\n")
    with pytest.raises(ValueError, match="unknown part 'holdout'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,dmos\na.png,1\n", "needs a header with the columns image,mos"),
        ("name,mos\na.png,1\n", "lacks columns image; it has name, mos"),
        ("image,mos\n", "has no row"),
        ("", "labels.csv cannot be read"),
        ("image,mos\n/etc/a.png,1\n", "image names must be relative to"),
    ],
)
def test_a_plain_csv_that_cannot_be_read_says_why(content: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path, ["a.png"])
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def rewrite(file: Path, column: str, change: Callable[[pd.Series], object]) -> None:
    table = pd.read_csv(file)
    table[column] = change(table[column])
    table.to_csv(file, index=False)


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
    with pytest.raises(ValueError, match=r"7 of \d+ images are missing: \S+, \S+, \S+, \S+, \S+, \.\.\."):
        load(tmp_path, "all")


def test_only_the_images_of_the_chosen_part_must_be_there(tmp_path: Path) -> None:
    koniq10k(tmp_path)
    kept = set(load(tmp_path, "test").images)
    for image in load(tmp_path, "all").images:
        if image not in kept:
            image.unlink()
    assert len(load(tmp_path).ids) == 9
    with pytest.raises(ValueError, match="27 of 36 images are missing"):
        load(tmp_path, "all")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_label_file_of_another_length_than_published_is_noted(name: str, tmp_path: Path) -> None:
    assert any("were published" in note for note in load(PUBLISHED[name][0](tmp_path), "all").notes)


@pytest.mark.parametrize("name", CSV)
@pytest.mark.parametrize("value", ["", "nan", "inf", "good"])
def test_labels_that_are_no_finite_numbers_are_refused(name: str, value: str, tmp_path: Path) -> None:
    file, column = CSV[name]
    rewrite(PUBLISHED[name][0](tmp_path) / file, column, lambda labels: [*labels[:-1], value])
    with pytest.raises(ValueError, match="1 labels are not finite numbers, the first of"):
        load(tmp_path)


def test_an_image_that_is_labelled_twice_is_refused_whatever_its_case(tmp_path: Path) -> None:
    file = tid2013(tmp_path) / "mos_with_names.txt"
    file.write_text(file.read_text() + "5.0 I01_01_1.BMP\n")
    with pytest.raises(ValueError, match=r"(?i)lists \S+/i01_01_1\.bmp 2 times"):
        load(tmp_path)


def test_an_image_that_is_labelled_by_two_names_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "labels.csv").write_text("image,mos\na.png,1\nb.png,2\nimages/a.png,3\n")
    with pytest.raises(ValueError, match=r"lists \S+images/a\.png 2 times"):
        load(tmp_path)


@pytest.mark.parametrize("name", CSV)
def test_labels_on_another_scale_are_refused_with_both_ranges(name: str, tmp_path: Path) -> None:
    file, column = CSV[name]
    rewrite(PUBLISHED[name][0](tmp_path) / file, column, lambda labels: labels * 10)
    with pytest.raises(
        ValueError, match=r"labels range from \S+ to \S+, but the published labels of \w+ range from \S+"
    ):
        load(tmp_path)


def test_koniqs_mean_of_votes_is_not_taken_for_its_mos(tmp_path: Path) -> None:
    koniq10k(tmp_path, SCORES)
    votes = pd.read_csv(tmp_path / SCORES).drop(columns="MOS_zscore")
    votes.to_csv(tmp_path / SCORES, index=False)
    with pytest.raises(ValueError, match=r"published labels of koniq10k range from 3\.91 to 88\.39"):
        load(tmp_path)


def test_labels_within_the_range_that_fill_little_of_it_were_rescaled(tmp_path: Path) -> None:
    file = spaq(tmp_path) / "Annotations" / "MOS and Image attribute scores.xlsx"
    table = pd.read_excel(file)
    table.assign(MOS=1 + table["MOS"] / 25 + 2).to_excel(file, index=False)
    with pytest.raises(ValueError, match="they were rescaled or inverted"):
        load(tmp_path)


@pytest.mark.parametrize("name", CSV)
def test_labels_that_were_turned_over_within_their_range_are_refused(name: str, tmp_path: Path) -> None:
    file, column = CSV[name]
    rewrite(PUBLISHED[name][0](tmp_path) / file, column, lambda labels: labels.min() + labels.max() - labels)
    with pytest.raises(ValueError, match=r"labels fall as .* rises, but the published labels of .* rise with quality"):
        load(tmp_path)


def test_a_csiq_file_that_is_mos_already_is_not_turned_again(tmp_path: Path) -> None:
    mos = load(csiq(tmp_path))
    (tmp_path / "csiq.DMOS.xlsx").unlink()
    lines = [f"{image.name} {value}\n" for image, value in zip(mos.images, mos.mos, strict=True)]
    (tmp_path / "csiq_label.txt").write_text("".join(lines))
    with pytest.raises(ValueError, match=r"rise with damage: they were inverted"):
        load(tmp_path)


def test_spaqs_and_tids_direction_is_checked_too(tmp_path: Path) -> None:
    file = spaq(tmp_path / "spaq") / "Annotations" / "MOS and Image attribute scores.xlsx"
    table = pd.read_excel(file)
    table.assign(MOS=98 - table["MOS"]).to_excel(file, index=False)
    with pytest.raises(ValueError, match="fall as Sharpness rises"):
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
