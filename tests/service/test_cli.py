"""The command line against a real HTTP server."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner, Result

from service.cli import app
from service.commands import tables
from tests.imports import heavy_after
from tests.service.conftest import KEY, Listening, picture

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures, the brighter the later, one of them in a folder below; and what is none."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(50 * number))
    (folder / "below" / "4.jpg").write_bytes(picture(200, kind="JPEG"))
    (folder / "notes.txt").write_text("no image")
    return folder


def evoquality(*arguments: object, url: str | None = None) -> Result:
    env = {"EVOQUALITY_URL": url} if url else {}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


def rows_of(file: Path) -> list[dict[str, object]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_files_are_scored_and_those_that_could_not_be_are_told(listening: Listening, tmp_path: Path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(picture(255))
    bad.write_bytes(b"no image")
    done = evoquality("score", good, bad, "--json", url=listening.url)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert (lines[0]["image"], lines[0]["score"]) == (str(good), pytest.approx(5, abs=0.1))
    assert "not a complete image" in lines[1]["error"]
    table = evoquality("score", good, url=listening.url)
    assert (table.exit_code, f"{lines[0]['score']:.2f}" in table.stdout) == (0, True)


def test_a_folder_becomes_a_table(listening: Listening, photos: Path, tmp_path: Path):
    out = tmp_path / "scores.csv"
    done = evoquality("score", photos, "--out", out, url=listening.url)
    rows = rows_of(out)
    assert done.exit_code == 0
    assert "5 scored, 0 without" in done.stderr
    assert list(rows[0]) == list(tables.COLUMNS)
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png", "3.png", "4.jpg"]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    assert {row["version"] for row in rows} == {listening.world.first}


def test_a_pattern_chooses_among_the_files_of_a_folder(listening: Listening, photos: Path):
    done = evoquality("score", photos, "--pattern", "[01].png", "--json", url=listening.url)
    assert [Path(json.loads(line)["image"]).name for line in done.stdout.splitlines()] == ["0.png", "1.png"]
    assert evoquality("score", photos, "--pattern", "*.tiff", url=listening.url).exit_code == 2


def test_every_kind_of_table_holds_the_same(listening: Listening, photos: Path, tmp_path: Path):
    (photos / "broken.png").write_bytes(b"no image")
    files = [tmp_path / f"scores{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    for file in files:
        assert evoquality("score", photos, "--out", file, url=listening.url).exit_code == 1
    as_csv = rows_of(files[0])
    as_jsonl = [json.loads(line) for line in files[1].read_text().splitlines()]
    as_parquet = parquet.read_table(files[2]).to_pylist()
    assert as_jsonl == as_parquet
    assert [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in as_jsonl] == as_csv
    (broken,) = (row for row in as_jsonl if row["error"])
    assert "not a complete image" in broken["error"] and broken["score"] is None


def test_a_second_run_asks_only_for_what_is_new_or_changed_or_failed(
    listening: Listening, photos: Path, tmp_path: Path
):
    broken, out = photos / "broken.png", tmp_path / "scores.csv"
    broken.write_bytes(b"no image")
    first = evoquality("score", photos, "--out", out, url=listening.url)
    assert (first.exit_code, "broken.png: The bytes" in first.stderr) == (1, True)
    listening.world.engine.asked.clear()
    assert evoquality("score", photos, "--out", out, url=listening.url).exit_code == 1
    assert listening.world.engine.asked == []
    broken.write_bytes(picture(111))
    (photos / "new.png").write_bytes(picture(112))
    (photos / "0.png").write_bytes(picture(113))
    assert evoquality("score", photos, "--out", out, url=listening.url).exit_code == 0
    assert scored_levels(listening) == {111, 112, 113}
    assert len(rows_of(out)) == 7


def test_other_options_and_other_weights_are_asked_anew(make_listening, photos: Path, tmp_path: Path):
    listening, out = make_listening(cache_entries=0), tmp_path / "scores.csv"
    evoquality("score", photos, "--out", out, url=listening.url)
    listening.world.engine.asked.clear()
    evoquality("score", photos, "--out", out, "--seed", 1, url=listening.url)
    assert len(listening.world.engine.asked) == 5
    with listening.operators as operators:
        operators.post(f"/internal/versions/{listening.world.second}/promote")
    evoquality("score", photos, "--out", out, "--seed", 1, url=listening.url)
    assert {row["version"] for row in rows_of(out)} == {listening.world.second}


def test_a_killed_run_goes_on_where_it_stopped(listening: Listening, photos: Path, tmp_path: Path):
    engine, out = listening.world.engine, tmp_path / "scores.csv"
    for number in range(20):
        (photos / f"more-{number}.png").write_bytes(picture(2 * number + 1))
    journal = tmp_path / "scores.csv.journal"
    command = ["score", str(photos), "--out", str(out), "--jobs", "2", "--samples", "1"]
    engine.seconds = 0.05
    process = subprocess.Popen([sys.executable, "-m", "service.cli", *command, "--url", listening.url])
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    with journal.open("a") as stream:
        stream.write('{"image": "half a li')
    kept = {Path(json.loads(line)["image"]) for line in journal.read_text().splitlines()[:-1]}
    engine.seconds = 0
    engine.asked.clear()
    done = evoquality(*command, url=listening.url)
    assert (done.exit_code, len(rows_of(out))) == (0, 25)
    assert len(kept) >= 5
    assert scored_levels(listening).isdisjoint(level_of(image) for image in kept)
    assert {Path(json.loads(line)["image"]) for line in journal.read_text().splitlines()} > kept


def test_what_cannot_be_written_is_said_before_the_work(listening: Listening, photos: Path, monkeypatch):
    wrong = {
        "scores.xls": "must end in .csv, .jsonl, .parquet",
        "nowhere/scores.csv": "its folder does not exist",
        "scores.parquet": "pip install",
    }
    monkeypatch.setattr("service.extras.find_spec", lambda name: None)
    for name, reason in wrong.items():
        done = evoquality("score", photos, "--out", photos / name, url=listening.url)
        assert (done.exit_code, reason in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert listening.world.engine.asked == []


def test_an_output_is_replaced_whole_or_not_at_all(photos: Path, monkeypatch):
    out = photos / "scores.jsonl"
    tables.write(out, {Path("a.png"): "reason"})
    before = out.read_text()
    monkeypatch.setattr(tables.json, "dumps", lambda row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tables.write(out, {Path("b.png"): "reason"})
    assert out.read_text() == before
    assert [file.name for file in photos.iterdir() if file.name.startswith(".")] == []


def test_two_files_are_compared(listening: Listening, photos: Path):
    dark, bright = photos / "0.png", photos / "3.png"
    compared = evoquality("compare", dark, bright, "--json", url=listening.url)
    assert json.loads(compared.stdout)["preferred"] == "second"
    told = evoquality("compare", dark, bright, url=listening.url)
    assert "3.png" in told.stdout.replace("\n", "") and "position bias" in told.stdout
    odd = evoquality("compare", dark, bright, "--samples", 3, url=listening.url)
    assert (odd.exit_code, "--samples" in odd.stderr) == (2, True)


def test_a_folder_is_ranked(listening: Listening, photos: Path):
    done = evoquality("rank", photos, "--json", "--comparisons", 10, url=listening.url)
    places = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(place["image"]).name for place in places] == ["4.jpg", "3.png", "2.png", "1.png", "0.png"]
    assert [place["rank"] for place in places] == [1, 2, 3, 4, 5]
    table = evoquality("rank", photos, url=listening.url)
    assert (table.exit_code, "of 10 pairs compared" in table.stdout) == (0, True)
    one = evoquality("rank", photos / "0.png", url=listening.url)
    assert (one.exit_code, "Give 2 to 64" in one.stderr) == (2, True)


def test_what_serves_is_told(listening: Listening):
    told = evoquality("info", url=listening.url).stdout
    assert listening.world.first in told and "max ranked" in told


def test_versions_are_listed_promoted_and_rolled_back(listening: Listening, tmp_path: Path):
    first, second = listening.world.first, listening.world.second
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    where = ["--operator-url", listening.operator_url]
    assert "active" in evoquality("versions", "list", url=listening.url).stdout
    promoted = evoquality("versions", "promote", second, *where, "--key-file", key_file, "--json")
    assert json.loads(promoted.stdout)["version"] == second
    back = evoquality("versions", "rollback", *where, "--operator-key", KEY)
    assert f"{first} serves" in back.stdout.replace("\n", " ")
    for key, reason in (("--operator-key", "key as a bearer"), ("--key-file", "cannot be read")):
        refused = evoquality("versions", "rollback", *where, key, "wrong")
        assert (refused.exit_code, reason in " ".join(refused.stderr.split())) == (2, True)


def test_a_key_that_no_header_can_hold_is_refused_in_one_sentence():
    done = evoquality("versions", "list", "--key", "clé", url=NOBODY)
    assert (done.exit_code, "outside ASCII" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", [["versions", "list"], ["info"], ["compare", "IMAGE", "IMAGE"], ["score", "IMAGE"]])
def test_nobody_answering_is_said_in_one_sentence(photos: Path, command: list[str], monkeypatch):
    monkeypatch.setattr("evoquality.retries._wait", lambda state: 0)
    arguments = [str(photos / "0.png") if word == "IMAGE" else word for word in command]
    done = evoquality(*arguments, url=NOBODY)
    assert (done.exit_code, "cannot be reached" in done.stderr) == (2, True)


def level_of(image: Path) -> int:
    with Image.open(image) as opened:
        return opened.getpixel((0, 0))[0]


def scored_levels(listening: Listening) -> set[int]:
    return {prompt.images[0].getpixel((0, 0))[0] for prompt, *_ in listening.world.engine.asked}


def test_the_command_line_starts_quickly_without_the_ranking_library():
    assert heavy_after(["service.cli"], ["statsmodels", "pandas", "pyarrow", "torch"]) == {"service.cli": []}
