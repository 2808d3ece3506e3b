"""The labelled probe of the gate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service.prompts import PROFILES
from tests.trainer.brightness import LEVELS, brightness
from tests.trainer.replicas import Replicas
from trainer.cli import app
from trainer.promotion.probe import Probe
from trainer.training.rollouts import Served


def asked(probe: Probe, replicas: Replicas) -> float:
    with replicas.workers() as workers:
        return probe(Served(replicas.first.first), workers, PROFILES["plain"])


def test_scores_that_follow_the_labels_correlate_with_them(replicas: Replicas, tmp_path: Path) -> None:
    folder = brightness(tmp_path).root
    assert asked(Probe.of(folder, samples=2, seed=0), replicas) == 1
    rows = [f"{level}.png,{255 - level}" for level in LEVELS]
    (folder / "labels.csv").write_text("\n".join(["image,mos", *rows]))
    assert asked(Probe.of(folder, samples=2, seed=0), replicas) == -1


def test_scores_that_do_not_vary_or_cannot_be_read_are_worth_nothing(replicas: Replicas, tmp_path: Path) -> None:
    probe = Probe.of(brightness(tmp_path).root, samples=2, seed=0)
    for text in ("3.00", "no number"):
        for world in replicas.worlds:
            world.engine.answer = lambda *_, text=text: text
        assert asked(probe, replicas) == 0


def test_a_picture_that_cannot_be_decoded_is_left_out_and_told(replicas: Replicas, tmp_path: Path) -> None:
    one = brightness(tmp_path, levels=range(0, 250, 5))
    one.images[3].write_bytes(b"no picture")
    probe = Probe.of(one.root, samples=2, seed=0)
    assert probe.notes[1:] == ["probe brightness: 1 images cannot be decoded: images/15.png"]
    assert probe.benchmark.mos.tolist() == [mos for number, mos in enumerate(one.mos) if number != 3]
    assert asked(probe, replicas) > 0.99


def test_a_probe_of_which_many_cannot_be_decoded_is_refused_before_the_round(tmp_path: Path) -> None:
    one = brightness(tmp_path)
    one.images[3].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1 images of the probe \S+ cannot be decoded \(images/130\.png"):
        Probe.of(one.root, samples=2, seed=0)


def test_it_tells_how_many_images_it_has_and_which_are_missing(tmp_path: Path) -> None:
    folder = brightness(tmp_path, levels=range(0, 250, 5)).root
    (folder / "images" / "45.png").unlink()
    assert Probe.of(folder, samples=1, seed=0).notes == [
        "probe brightness: 49 images", "probe brightness: 1 images missing: 45.png",
    ]  # fmt: skip


def test_a_run_tells_it_before_its_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = brightness(tmp_path, levels=range(0, 250, 5)).root, tmp_path / "run"
    (folder / "images" / "45.png").unlink()
    flags = {"--pool": folder / "images", "--run": run, "--store": tmp_path, "--probe": folder}
    arguments = [str(word) for flag in flags.items() for word in flag]
    monkeypatch.setattr(sys, "argv", ["evoquality-trainer", "evolve", *arguments])
    with pytest.raises(SystemExit):  # there is no service
        app()
    assert "probe brightness: 1 images missing: 45.png" in capsys.readouterr().out
