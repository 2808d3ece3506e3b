"""The audit of the real engine's votes on a labelled benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.engine.running import Running
from trainer.demo.contents import content
from trainer.evaluation.benchmarks.load import load_all
from trainer.evaluation.pseudo_labels.benchmark_audit import ask, figures
from trainer.pool.distortions import distort
from trainer.progress import Stages
from trainer.settings.evaluate import AuditSettings

pytestmark = pytest.mark.engine
LEVELS = (1, 3, 5)


def benchmark(folder: Path) -> None:
    """Pictures with more and more noise, and by how much they are the better for less."""
    (folder / "images").mkdir(parents=True)
    rows = ["image,mos"]
    for index in range(2):
        for level in LEVELS:
            picture = distort(content("benchmark", index), "white_noise", level, np.random.default_rng(level))
            picture.save(folder / "images" / f"{index}-{level}.png")
            rows.append(f"{index}-{level}.png,{5 - 0.7 * level}")
    (folder / "labels.csv").write_text("\n".join(rows))


def test_an_audit_tells_how_right_votes_are_goes_on_where_it_stopped_and_compares_versions(
    service: Running, first: str, second: str, tmp_path: Path
) -> None:
    benchmark(tmp_path / "sets" / "noise")
    settings = AuditSettings(
        benchmarks=[tmp_path / "sets"], out=tmp_path / "audit", groups=1, group_size=6,
        store=service.store.root, operator=service.operator_url,
    )  # fmt: skip
    sets = load_all(settings.benchmarks)
    assert ask(settings, sets, Stages()) == first
    kept = tmp_path / "audit" / "noise" / "votes" / f"{first}.jsonl"
    whole = kept.read_text()
    kept.write_text("".join(whole.splitlines(keepends=True)[:7]))
    assert ask(settings, sets, Stages()) == first
    assert sorted(kept.read_text().splitlines()) == sorted(whole.splitlines())
    service.operators.promote(second)
    assert ask(settings, sets, Stages()) == second
    versions = figures(settings.out, [first, second])["benchmarks"]["noise"]["versions"]
    assert [told["pairs"] for told in versions.values()] == [15, 15]
    assert versions[first]["accuracy"]["label"]["pairs"] == 12
    assert versions[first]["cycles"]["majorities"]["triples"] == 20
    assert versions[second]["changes"]["pairs"] == 15
