"""The command's output on terminals and pipes of every kind."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.commands.common import number
from service.server import _address
from tests.service.conftest import Listening, picture
from tests.service.test_cli import evoquality

ASCII = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, encoding="ascii", timeout=120)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "é日本.png", os.fsdecode(b"\xe9.png")):
        (tmp_path / "p" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "p" / name).write_bytes(picture())
    return tmp_path / "p"


@pytest.mark.parametrize("words", [["score"], ["rank"], ["score", "--out", "s.csv"], ["versions", "list"], ["--help"]])
def test_an_ascii_terminal_gets_substitutes_and_never_a_traceback(listening: Listening, photos: Path, words: list[str]):
    words = [str(photos / word) if word == "s.csv" else word for word in words]
    asked = [] if words[0] in {"versions", "--help"} else [photos]
    done = command(*words, *asked, **ASCII, EVOQUALITY_URL=listening.url)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    if len(words) == 1 and asked:
        assert "+/-" in done.stdout and "\\xe9\\u65e5\\u672c.png" in done.stdout


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_ids_and_names_are_whole_at_every_width(listening: Listening, photos: Path, columns: int, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    long = photos / f"{'long-' * 20}.png"
    long.write_bytes(picture())
    told = evoquality("versions", "list", url=listening.url).stdout
    assert listening.world.first in told and listening.world.second in told
    for words in (["score"], ["rank"]):
        table = evoquality(*words, photos, url=listening.url).stdout
        assert str(long) in table and ("strength" if words == ["rank"] else "unreadable") in table


@pytest.mark.parametrize("words", [["--help"], ["versions", "list", "--json"], ["score", "PHOTOS", "--json"]])
def test_a_reader_that_goes_away_is_no_traceback(listening: Listening, photos: Path, words: list[str]):
    reads, writes = os.pipe()
    os.close(reads)
    argv = [sys.executable, "-m", "service.cli", *(str(photos) if word == "PHOTOS" else word for word in words)]
    env = {**os.environ, "EVOQUALITY_URL": listening.url}
    done = subprocess.run(argv, stdout=writes, stderr=subprocess.PIPE, env=env, text=True, timeout=120)
    os.close(writes)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr, done.stderr


@pytest.mark.parametrize("env", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted_and_no_control_sequences_on_a_dumb_terminal(
    listening: Listening, photos: Path, env: dict[str, str]
):
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "service.cli", "score", str(photos), "--url", listening.url]
    subprocess.run(argv, stdout=theirs, stderr=theirs, env={**os.environ, **env}, check=True, timeout=120)
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 65536):
            told += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert b"score" in told
    assert not re.search(rb"\x1b\[[0-9;]*m" if "NO_COLOR" in env else rb"\x1b", re.sub(rb"\x1b\[[01]?m", b"", told))


@pytest.mark.parametrize(("value", "told"), [(-0.001, "0.00"), (-0.0, "0.00"), (-0.006, "-0.01"), (None, "–")])
def test_zero_has_no_sign(value: float | None, told: str):
    assert number(value) == told


def test_an_address_of_ipv6_has_brackets():
    with socket.socket(socket.AF_INET6) as bound:
        bound.bind(("::1", 0))
        assert re.fullmatch(r"\[::1\]:\d+", _address(bound))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert re.fullmatch(r"127\.0\.0\.1:\d+", _address(bound))
