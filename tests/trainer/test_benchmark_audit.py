"""The audit of votes on benchmarks: which pairs are asked about, and what is made of the votes that are kept."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.votes import exact
from trainer.cli import app
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.pseudo_labels.benchmark_audit import ask, figures, questions
from trainer.files import read_json, write_json, write_jsonl
from trainer.progress import Stages
from trainer.reporting.audit import table, write_audit
from trainer.settings.evaluate import AuditSettings
from trainer.voting.groups import pairs_of

GROUPS = [["a", "b", "c"]]
TRUTH = {"a": 80.0, "b": 40.0, "c": 20.0}


def benchmark(folder: Path, images: int, name: str = "spaq") -> Benchmark:
    folder.mkdir(parents=True)
    for number in range(images):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    return Benchmark(
        name, folder, [f"{n}.png" for n in range(images)], np.arange(images, dtype=float), notes=["1 image missing: x"]
    )


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """A folder with the votes of two versions on one benchmark."""
    asked = {"groups": GROUPS, "truth": TRUTH, "images": {image: f"{image}.png" for image in TRUTH}, "notes": ["<i>"]}
    write_json(tmp_path / "settings.json", {"groups": 1})
    write_json(tmp_path / "spaq" / "pairs.json", asked)
    cast = {"v-old": [exact("ab", 0.9), exact("bc", 0.1)], "v-new": [exact("ab", 0.9), exact("bc", 0.9)]}
    for version, votes in cast.items():
        write_jsonl(tmp_path / "spaq" / "votes" / f"{version}.jsonl", [asdict(v) for v in [*votes, exact("ac", 0.9)]])
    return tmp_path


def test_groups_are_of_the_benchmarks_images_with_their_truth(tmp_path: Path) -> None:
    asked = questions(benchmark(tmp_path / "set", 30), tmp_path / "pairs.json", groups=4, size=5, seed=0)
    assert [len(set(group)) for group in asked.groups] == [5] * 4
    assert len(asked.images) == 20
    assert all(asked.truth[image] == float(id.removesuffix(".png")) for image, id in asked.images.items())
    assert asked.notes == ["1 image missing: x"]


def test_the_pool_holds_the_images_by_their_contents(tmp_path: Path) -> None:
    made = benchmark(tmp_path / "set", 6)
    asked = questions(made, tmp_path / "pairs.json", groups=1, size=6, seed=0)
    pool = asked.pool(made)
    for image, id in asked.images.items():
        assert pool.bytes_of(image) == (made.root / id).read_bytes()


def test_questions_are_drawn_once(tmp_path: Path) -> None:
    made = benchmark(tmp_path / "set", 30)
    first = questions(made, tmp_path / "pairs.json", groups=2, size=5, seed=0)
    assert questions(made, tmp_path / "pairs.json", groups=2, size=5, seed=0) == first
    assert questions(made, tmp_path / "other.json", groups=2, size=5, seed=1) != first


def test_a_set_smaller_than_a_group_is_one_group_and_one_image_is_none(tmp_path: Path) -> None:
    asked = questions(benchmark(tmp_path / "few", 4), tmp_path / "few.json", groups=1, size=12, seed=0)
    assert len(pairs_of(asked.groups)) == 6
    with pytest.raises(ValueError, match="spaq has fewer than two different images"):
        questions(benchmark(tmp_path / "one", 1), tmp_path / "one.json", groups=1, size=12, seed=0)


def test_versions_stand_in_their_order_each_with_its_changes_since_the_one_before(audited: Path) -> None:
    versions = figures(audited, ["v-old", "v-new"])["benchmarks"]["spaq"]["versions"]
    assert list(versions) == ["v-old", "v-new"]
    assert [found["accuracy"]["label"]["share"] for found in versions.values()] == [pytest.approx(2 / 3), 1]
    assert versions["v-old"]["changes"] is None
    assert (versions["v-new"]["changes"]["changed"], versions["v-new"]["changes"]["better"]) == (1, 1)
    assert list(figures(audited, ["v-new"])["benchmarks"]["spaq"]["versions"]) == ["v-old", "v-new"]
    assert list(figures(audited, ["v-new", "v-old"])["benchmarks"]["spaq"]["versions"]) == ["v-new", "v-old"]


def test_the_page_shows_every_version_and_asks_nothing_of_others(audited: Path) -> None:
    found = figures(audited, ["v-old", "v-new"])
    write_audit(audited, found)
    assert read_json(audited / "audit.json") == found
    page = (audited / "audit.html").read_text()
    assert re.search(r"labels changed</th><td>–</td><td>1 of 3: 1 better, 0 worse</td>", page)
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "<i>" not in page
    assert page.count("<figcaption>") == 5
    assert table(found, "v-new").row_count == 1
    assert table(found, "v-none").row_count == 0


def test_votes_asked_for_with_other_settings_are_not_mixed(tmp_path: Path) -> None:
    settings = AuditSettings(benchmarks=[tmp_path], out=tmp_path / "audit", store=tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"key .* cannot be read"):
        ask(settings, [], Stages())
    with pytest.raises(ValueError, match=r"other settings: --seed 2 \(was 1\); use the same"):
        ask(settings.model_copy(update={"seed": 2}), [], Stages())


def test_help_says_what_an_audit_is_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evoquality-trainer", "audit", "--help"])
    with pytest.raises(SystemExit):
        app()
    shown = capsys.readouterr().out
    for phrase in ("cycles among triples", "--tie-margin", "--group-size", "a killed audit resumes"):
        assert phrase in shown
