"""Files that a kill may interrupt."""

from __future__ import annotations

from pathlib import Path

from trainer.files import append_jsonl, read_jsonl, write_json


def test_a_line_torn_by_a_kill_is_passed_over_and_the_next_append_starts_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    append_jsonl(file, [{"n": 1}, {"n": 2}])
    with file.open("a") as torn:
        torn.write('{"n": 3, "half')
    append_jsonl(file, [{"n": 4}])
    assert [row["n"] for row in read_jsonl(file)] == [1, 2, 4]


def test_a_file_that_does_not_exist_has_no_rows(tmp_path: Path) -> None:
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_replacing_a_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"a": 1})
    write_json(tmp_path / "value.json", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]
