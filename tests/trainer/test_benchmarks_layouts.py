"""Which layout a folder or a file is in, where it could be more than one."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from tests.trainer.published import agiqa3k, csiq, kadid10k, koniq10k, tid2013, touch
from trainer.evaluation.benchmarks.load import load, load_all


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
    with pytest.raises(ValueError, match="holds several benchmarks, name one"):
        load(tmp_path)
