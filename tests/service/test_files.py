"""Folders, file names and text files as people have them."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet

from service.api.keys import add_key, read_keys
from service.configuration.settings import Settings, operator_key
from service.errors import UserError
from service.files import printable, read_text
from service.folders import fits, suffixes, walk
from service.images.picture import FORMATS, take_heif
from tests.service.conftest import KEY, Listening, picture
from tests.service.test_cli import evoquality, rows_of

LATIN = os.fsdecode(b"caf\xe9.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", LATIN, "z.png"):
        (folder / name).write_bytes(picture())
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def names_of(stdout: str) -> list[str]:
    return [Path(json.loads(line)["image"]).name for line in stdout.splitlines()]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_name_that_is_not_utf_8_is_escaped_in_every_table_and_asked_once(
    listening: Listening, photos: Path, tmp_path: Path, suffix: str
):
    read = {
        ".csv": rows_of,
        ".jsonl": lambda file: [json.loads(line) for line in file.read_text().splitlines()],
        ".parquet": lambda file: parquet.read_table(file).to_pylist(),
    }
    out = tmp_path / f"scores{suffix}"
    for _ in range(2):
        done = evoquality("score", photos, "--out", out, url=listening.url)
        assert (done.exit_code, "3 scored, 0 without" in done.stderr) == (0, True), done.stderr
        rows = read[suffix](out)
        assert [Path(row["image"]).name for row in rows] == ["a.png", "caf\\xe9.png", "z.png"]
        assert all(row["score"] for row in rows)
    assert len((tmp_path / f"scores{suffix}.journal").read_text().splitlines()) == 3


def test_such_a_name_is_printed_by_every_command(listening: Listening, photos: Path):
    for command in (["score"], ["rank"], ["score", "--json"], ["rank", "--json"]):
        done = evoquality(*command, photos, url=listening.url)
        assert (done.exit_code, "\\xe9.png" in done.stdout) == (0, True), done.output
    (photos / LATIN).write_bytes(b"no picture")
    done = evoquality("score", photos, "--out", photos.parent / "scores.csv", url=listening.url)
    assert (done.exit_code, "2 scored, 1 without" in done.stderr, "\\xe9.png: The bytes" in done.stderr) == (
        1,
        True,
        True,
    )
    for pair in ((LATIN, "a.png"), ("a.png", LATIN)):
        done = evoquality("compare", *(photos / name for name in pair), url=listening.url)
        assert done.exit_code in {0, 2} and not isinstance(done.exception, UnicodeError)


def test_the_formats_of_the_service_choose_the_files(make_listening: Callable[..., Listening], photos: Path):
    (photos / "phone.HEIC").write_bytes(picture())
    (photos / "scan.JPG").write_bytes(picture(kind="JPEG"))
    (photos / "._scan.JPG").write_bytes(b"what macOS keeps beside it")
    for number in range(5):
        (photos / f"{number}.mov").write_bytes(b"no picture")
    with_heif = evoquality("score", photos, "--json", url=make_listening(heif=True).url)
    assert names_of(with_heif.stdout) == ["a.png", "caf\\xe9.png", "phone.HEIC", "scan.JPG", "z.png"]


def test_files_of_other_kinds_are_counted_and_a_few_are_named(listening: Listening, photos: Path):
    for name in ("1.heic", "2.mov", "3.mov", "4.mov", "5.mov"):
        (photos / name).write_bytes(b"no picture")
    done = evoquality("score", photos, url=listening.url)
    listed = ", ".join(str(photos / name) for name in ("1.heic", "2.mov", "3.mov"))
    assert (done.exit_code, f"Passed over (by their names): {listed} and 2 more" in done.stderr) == (0, True)


def test_a_pattern_fits_either_case_and_any_depth(listening: Listening, photos: Path):
    (photos / "Deep" / "er").mkdir(parents=True)
    for name in ("one.JPG", "Deep/two.jpg", "Deep/er/three.Jpg"):
        (photos / name).write_bytes(picture(kind="JPEG"))
    wanted = {
        "*.jpg": ["three.Jpg", "two.jpg", "one.JPG"],
        "**/*.JPG": ["three.Jpg", "two.jpg", "one.JPG"],
        "deep/*.jpg": ["two.jpg"],
        "deep/**/*.jpg": ["three.Jpg", "two.jpg"],
        "[A-B].PNG": ["a.png"],
    }
    for pattern, names in wanted.items():
        done = evoquality("score", photos, "--pattern", pattern, "--json", url=listening.url)
        assert names_of(done.stdout) == names, pattern


def test_a_part_fits_a_pattern_that_only_its_folders_begin():
    assert fits(("a",), ("A", "**", "c"), begins=True) and not fits(("a",), ("A", "**", "c"))
    assert not fits(("b",), ("a", "c"), begins=True)


def test_the_suffixes_are_those_that_pillow_knows():
    formats = take_heif()
    Image.init()
    known = {suffix: name for suffix, name in Image.registered_extensions().items() if name in formats}
    assert {suffix: known[suffix] for suffix in suffixes(formats)} == {
        suffix: name for suffix, name in known.items() if suffix not in {".apng", ".avifs", ".heics", ".heifs"}
    }, "all but those of moving pictures"
    assert suffixes(["JXL"]) == (".jxl",)
    assert set(suffixes(FORMATS)) < set(suffixes(formats))


def test_a_closed_folder_is_named_and_the_exit_code_says_it(listening: Listening, open_folder: Path):
    (open_folder / "closed").mkdir(mode=0o700)
    (open_folder / "a.png").write_bytes(picture())
    evoquality("score", open_folder, url=listening.url)  # starts the decoders
    with as_nobody():
        done = evoquality("score", open_folder, "--json", url=listening.url)
    assert (done.exit_code, names_of(done.stdout)) == (1, ["a.png"])
    assert f"Passed over (Permission denied): {open_folder / 'closed'}" in done.stderr


def test_linked_folders_are_named_and_entered_once_on_demand(listening: Listening, photos: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.png").write_bytes(picture())
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (photos / "loop").symlink_to(photos)
    (photos / "self").symlink_to("self")
    (photos / "file.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    plain = evoquality("score", photos, "--json", url=listening.url)
    assert (plain.exit_code, names_of(plain.stdout)) == (0, ["a.png", "caf\\xe9.png", "file.png", "z.png"])
    assert f"--follow-links enters it): {photos / 'link'}, {photos / 'loop'}" in plain.stderr
    followed = evoquality("score", photos, "--follow-links", "--json", url=listening.url)
    assert (followed.exit_code, len(names_of(followed.stdout))) == (0, 5)
    assert "far.png" in names_of(followed.stdout)
    assert f"entered already): {photos / 'loop'}" in followed.stderr
    assert evoquality("rank", photos, "--follow-links", "--json", url=listening.url).stdout.count("far.png") == 1


def test_what_is_neither_file_nor_folder_is_not_opened_and_a_lost_link_is_a_file_without_a_score(
    listening: Listening, photos: Path
):
    os.mkfifo(photos / "pipe.png")
    (photos / "lost.png").symlink_to("nowhere")
    done = evoquality("score", photos, "--json", url=listening.url)
    assert (done.exit_code, "a folder): " + str(photos / "pipe.png") in done.stderr) == (1, True)
    (lost,) = (row for row in map(json.loads, done.stdout.splitlines()) if "error" in row)
    assert (Path(lost["image"]).name, lost["error"]) == ("lost.png", "The file cannot be read.")


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder for trees that Python, and so pytest, cannot remove: its way is recursive."""
    (tmp_path / "deep").mkdir()
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_a_folder_too_deep_for_a_path_is_said(deep: Path):
    (deep / "a.png").write_bytes(picture())
    here, name = os.open(deep, os.O_RDONLY), "d" * 200
    for _ in range(25):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert [reason for _, reason in walk(deep, follow_links=False)] == [None, "File name too long"]


def test_a_chain_of_a_thousand_folders_is_walked(deep: Path):
    below = deep
    for _ in range(1100):
        below /= "d"
        below.mkdir()
    (below / "a.png").touch()
    assert list(walk(deep, follow_links=False)) == [(below / "a.png", None)]
    assert fits((below / "a.png").parts, ("**", "A.*"))


MARKED = {"utf-8": b"", "utf-8-sig": b"", "utf-16": b"", "utf-32": b"", "utf-16-be": codecs.BOM_UTF16_BE}
"""Encoding -> a mark that Python does not write."""


@pytest.mark.parametrize("encoding", MARKED)
def test_settings_and_keys_are_read_in_every_marked_encoding(encoding: str, tmp_path: Path):
    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(MARKED[encoding] + text.replace("\n", "\r\n").encode(encoding))
        return tmp_path / name

    assert Settings(config=written("a.toml", 'model_name = "é"\nport = 1\n')).model_name == "é"
    assert operator_key(written("operator.key", f"{KEY}\n")) == KEY
    entry = {"name": "me", "sha256": "0" * 64}
    assert read_keys(written("keys.json", json.dumps({"keys": [entry]})))[0].name == "me"
    keys = written("keys.toml", f'# clé\n[[keys]]\nname = "me"\nsha256 = "{"0" * 64}"\n')
    add_key(keys, "you", None, None)
    assert [key.name for key in read_keys(keys)] == ["me", "you"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
def test_text_in_another_encoding_is_refused_in_a_sentence_with_the_remedy(encoding: str, tmp_path: Path):
    file = tmp_path / "é.toml"
    file.write_bytes('model_name = "é"'.encode(encoding))
    told = "é.toml is not UTF-8 text; save it again with the encoding UTF-8"
    for read in (read_text, operator_key, read_keys, lambda file: Settings(config=file)):
        with pytest.raises(UserError, match=told):
            read(file)
    done = evoquality("versions", "rollback", "--key-file", file)
    assert (done.exit_code, told in done.stderr) == (2, True)


@pytest.mark.parametrize("key", ["", "schlüssel", "two\nlines"])
def test_a_file_without_a_key_is_refused_before_anything_is_sent(key: str, tmp_path: Path):
    (tmp_path / "key").write_text(key)
    done = evoquality("versions", "rollback", "--key-file", tmp_path / "key")
    assert (done.exit_code, "does not hold a key, which is one line" in done.stderr) == (2, True)


def test_a_printable_name_is_the_name_itself_where_it_is_utf_8():
    assert [printable(Path("é/日本.png")), printable(LATIN)] == ["é/日本.png", "caf\\xe9.png"]
