"""Names of files and folders, and encodings of labels, as people have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import unicodedata
from pathlib import Path

import pytest

from service.folders import LINKED
from service.images.picture import FORMATS, take_heif
from tests.service.conftest import picture
from tests.service.test_files import as_nobody, open_folder
from tests.trainer.test_pool import LIMITS, drawn, ids, listed, parquet, png
from tests.trainer.test_pool import photos as photos
from trainer.evaluation.benchmarks.load import load
from trainer.files import read_json, read_jsonl, write_json, write_text
from trainer.pool.pool import Pool
from trainer.pool.sources import Sources
from trainer.settings.evolve import EvolveSettings

__all__ = ["open_folder", "photos"]

LATIN = os.fsdecode(b"caf\xe9")
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))


def unreadable(folder: Path) -> dict[str, str]:
    return {Path(row["file"]).name: row["problem"] for row in read_jsonl(folder / "unreadable.jsonl")}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.png", "b.png", COMPOSED):
        (folder / name).write_bytes(picture())
    return folder


def test_a_file_and_a_folder_whose_names_are_not_utf_8_are_in_the_pool(photos: Path, tmp_path: Path) -> None:
    (photos / LATIN).mkdir()
    (photos / LATIN / f"{LATIN}.png").write_bytes(png(77))
    (photos / f"{LATIN}.jpg").write_bytes(b"no picture")
    round_ = tmp_path / LATIN / "round"
    for source in (photos, photos / "**" / "*.*", photos / LATIN):
        pool, _ = drawn(source, round_)
        again = Pool.load(round_ / "pool.jsonl")
        assert {again.bytes_of(image) for image in ids(pool)} >= {png(77)}
    drawn(photos, round_)
    assert set(unreadable(round_)) == {"caf\\xe9.jpg"}


def test_a_list_of_such_names_is_read(photos: Path) -> None:
    (photos / f"{LATIN}.png").write_bytes(png(77))
    names = b"\n".join(os.fsencode(path.relative_to(photos.parent)) for path in photos.rglob("*.png"))
    (photos.parent / "list.txt").write_bytes(names)
    assert len(drawn(photos.parent / "list.txt", photos.parent / "round")[0].images) == 7


def test_settings_and_reports_take_such_names(photos: Path, tmp_path: Path) -> None:
    (tmp_path / LATIN).mkdir()
    settings = EvolveSettings(pool=tmp_path / LATIN, run=tmp_path / LATIN / "run")
    write_json(settings.run / "settings.json", settings.model_dump(mode="json"))
    assert Path(read_json(settings.run / "settings.json")["pool"]) == settings.pool
    write_text(settings.run / "report.html", f"<p>{settings.pool}")
    assert (settings.run / "report.html").read_text(encoding="utf-8").endswith("caf\\udce9")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("form", [COMPOSED, DECOMPOSED])
def test_a_pools_list_in_any_unicode_encoding_and_form_finds_its_pictures(
    photos: Path, encoding: str, form: str, tmp_path: Path
) -> None:
    (photos / COMPOSED).write_bytes(png(77))
    text = listed(photos).read_text().replace(COMPOSED, form)
    (tmp_path / "list.txt").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert len(drawn(tmp_path / "list.txt", tmp_path / "round")[0].images) == 7
    cells = parquet([f"photos/{form}"], tmp_path / "p.parquet", "path")
    assert len(drawn(cells, tmp_path / "round")[0].images) == 1


def test_what_the_pools_walk_does_not_enter_is_listed_with_the_reason(
    photos: Path, open_folder: Path, tmp_path: Path
) -> None:
    (open_folder / "closed").mkdir(mode=0o700)
    (open_folder / "a.png").write_bytes(png(70))
    (photos / "away").symlink_to(open_folder)
    (photos / "loop").symlink_to(photos)
    os.mkfifo(photos / "pipe.png")
    for source in (photos, photos / "**" / "*.png"):
        pool, seen = drawn(source, tmp_path / "round")
        assert (len(pool.images), seen.unreadable) == (6, 3)
        assert unreadable(tmp_path / "round")["away"] == unreadable(tmp_path / "round")["loop"] == LINKED
    for source in (photos, photos / "**" / "*.png"):
        entries = Sources(source, LIMITS.max_bytes, follow_links=True)
        pool, _ = drawn(entries, tmp_path / "round")
        assert len(pool.images) == 7
        assert set(unreadable(tmp_path / "round")) == {"pipe.png", "loop"}
    with as_nobody():
        problems = {Path(entry.name).name for entry in Sources(open_folder, 9) if entry.file is None}
    assert problems == {"closed"}


def test_a_pattern_of_the_pool_fits_either_case_and_takes_folders_whole(photos: Path, tmp_path: Path) -> None:
    (photos / "Deeper2").mkdir()
    (photos / "Deeper2" / "9.PNG").write_bytes(png(99))
    (photos / "Deeper2" / "notes.doc").write_text("no picture")
    for pattern, count in (("**/*.PNG", 7), ("deeper*", 4), ("DEEPER?/*.png", 1), ("*/9.png", 1), ("**", 7)):
        pool, seen = drawn(photos / pattern, tmp_path / "round")
        assert (len(pool.images), seen.files) == (count, count), pattern


def test_files_of_other_kinds_are_counted_and_the_services_formats_choose_the_pictures(photos: Path) -> None:
    (photos / "phone.HEIC").write_bytes(b"a photograph")
    (photos / "film.mov").write_bytes(b"a film")
    (photos / "._0.png").write_bytes(b"what macOS keeps beside it")
    with tarfile.open(photos / "shard.tar", "w") as tar:
        tar.add(photos / "phone.HEIC", "in.heic")
    for formats, found in ((FORMATS, 0), (take_heif(), 2)):
        sources = Sources(photos, LIMITS.max_bytes, formats=formats)
        assert sum("heic" in entry.name.lower() for entry in sources) == found
        assert sources.passed.count == 3 - (found > 0)
        assert "film.mov" in str(sources.passed)


TABLE = [("image", "mos"), ("a.png", "1{0}5"), ("b.png", "2"), (COMPOSED, "3{0}25")]
KINDS = {
    "commas": (",", "."), "semicolons": (";", "."), "decimal commas": (";", ","), "tabs": ("\t", "."),
    "tabs and decimal commas": ("\t", ","),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["", "sep={}\n"])
def test_labels_are_read_with_every_separator_decimal_mark_and_unicode_encoding(
    labelled: Path, kind: str, encoding: str, first: str
) -> None:
    separator, mark = KINDS[kind]
    text = "\n".join(separator.join(row).format(mark) for row in TABLE)
    (labelled / "labels.csv").write_bytes((first.format(separator) + text).encode(encoding))
    found = load(labelled)
    assert (found.ids, found.mos.tolist()) == (["a.png", "b.png", COMPOSED], [1.5, 2, 3.25])


def test_quoted_decimal_commas_are_read_and_thousands_are_refused(labelled: Path) -> None:
    (labelled / "labels.csv").write_text('image,mos\na.png,"1,5"\nb.png,2\n')
    assert load(labelled).mos.tolist() == [1.5, 2]
    (labelled / "labels.csv").write_text('image,mos\na.png,"1,500.5"\nb.png,2\n')
    with pytest.raises(ValueError, match="1 labels are not finite numbers"):
        load(labelled)


@pytest.mark.parametrize("name", ["labels.csv", "list.json", "mos_with_names.txt"])
def test_labels_in_another_encoding_are_refused_in_a_sentence(labelled: Path, name: str) -> None:
    (labelled / name).write_bytes("image,mos\né.png,1\n".encode("cp1252"))
    asked = [sys.executable, "-m", "trainer", "evaluate", "--benchmarks", str(labelled / name)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300, cwd=labelled)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert f"{name} is not UTF-8 text; save it again with the encoding UTF-8" in done.stderr.replace("\n", "")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_json_list_with_a_mark_is_read(labelled: Path, encoding: str) -> None:
    rows = [{"id": name, "image": name, "gt_score": score} for name, score in (("a.png", 1), ("b.png", 2))]
    (labelled / "list.json").write_bytes(json.dumps(rows).encode(encoding))
    assert load(labelled / "list.json").mos.tolist() == [1, 2]


@pytest.mark.parametrize(("label", "file"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), ("É.PNG", DECOMPOSED)])
def test_a_label_finds_its_picture_in_another_unicode_form(tmp_path: Path, label: str, file: str) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / file).write_bytes(picture())
    (tmp_path / "set" / "labels.csv").write_text(f"image,mos\n{label},1\n")
    assert load(tmp_path / "set").ids == [f"images/{file}"]


def test_names_that_differ_in_case_or_form_only_are_different_pictures(labelled: Path) -> None:
    for name in ("A.png", DECOMPOSED):
        (labelled / name).write_bytes(picture())
    names = ["a.png", "A.png", COMPOSED, DECOMPOSED]
    (labelled / "labels.csv").write_text("image,mos\n" + "".join(f"{name},{len(name)}\n" for name in names))
    assert load(labelled).ids == names


def test_the_trainer_prints_to_an_ascii_terminal_and_to_a_reader_that_goes_away(tmp_path: Path) -> None:
    say = (
        "from trainer.cli import in_sentences; from rich.console import Console; "
        "in_sentences(lambda: Console().print('\\u00b1 \\u2192 \\u2588 \\udce9'))"
    )
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", say], env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "+/- -> # \\xe9", "")
    reads, writes = os.pipe()
    os.close(reads)
    gone = subprocess.run([sys.executable, "-c", say], env=env, stdout=writes, stderr=subprocess.PIPE, timeout=300)
    os.close(writes)
    assert b"Traceback" not in gone.stderr and b"BrokenPipe" not in gone.stderr


def test_a_benchmark_in_a_folder_of_such_a_name_has_a_name_that_can_be_written(labelled: Path) -> None:
    (labelled / "labels.csv").write_text("image,mos\na.png,1\nb.png,2\n")
    found = load(labelled.rename(labelled.with_name(LATIN)))
    assert (found.name, all(map(Path.exists, found.images))) == ("caf\\xe9", True)
