"""The models that `--models` can name, and the services started for them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from evoquality import Client
from service.versions.contents import content_id
from service.versions.store import VersionStore
from tests.service.conftest import KEY, Listening, checkpoint, listening, make_listening
from tests.trainer.brightness import LEVELS, brightness
from trainer.errors import Occupied, UserError
from trainer.evaluation.comparison.run import evaluated, run
from trainer.evaluation.models import Checkpoint, Serving, Version, find
from trainer.leftovers import folder_lock
from trainer.progress import Stages
from trainer.settings.evaluate import EvaluateSettings

__all__ = ["listening", "make_listening"]

NOBODY = "http://127.0.0.1:9"


def settings(folder: Path, **others: object) -> EvaluateSettings:
    return EvaluateSettings(benchmarks=[folder / "brightness"], out=folder / "out", resamples=50, **others)


def test_a_name_is_what_serves_a_version_or_a_checkpoint(tmp_path: Path) -> None:
    kinds = {
        "serving": Serving,
        "v9df0ac5853e5": Version,
        "Qwen/Qwen2.5-VL-7B-Instruct": Checkpoint,
        "./v1": Checkpoint,
    }
    assert {name: type(find(name, settings(tmp_path))) for name in kinds} == kinds


def test_lists_are_given_with_commas_on_the_command_line_and_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOQUALITY_TRAINER_MODELS", "serving, a/b")
    assert settings(tmp_path).models == ["serving", "a/b"]


def test_models_of_one_name_in_different_folders_keep_their_predictions_apart(tmp_path: Path) -> None:
    names = ("a/mine", "b/mine", "evoquality:a/mine")
    assert len({find(name, settings(tmp_path)).folder for name in names}) == len(names)


def test_a_folder_is_the_same_model_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("base", "inner/base"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "inner")
    folders = {name: find(name, settings(tmp_path)).folder for name in ("base", "./base", "../base", ".", "plain:base")}
    assert folders["base"] == folders["./base"] == folders["plain:base"]
    assert len(set(folders.values())) == 3 and tmp_path / "out" / "predictions" not in folders.values()


def test_two_evaluations_do_not_work_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with folder_lock(tmp_path / "out"), pytest.raises(Occupied, match="at work in"):
        run(settings(tmp_path))


def test_a_checkpoint_may_be_named_with_a_profile_of_its_own(tmp_path: Path) -> None:
    one, other = (find(name, settings(tmp_path)) for name in ("evoquality:owner/name@main", "owner/name"))
    assert isinstance(one, Checkpoint) and isinstance(other, Checkpoint)
    assert (one.path, one.profile) == ("owner/name@main", "evoquality")
    assert (other.path, other.profile) == ("owner/name", "plain")


def test_a_checkpoints_version_is_the_one_that_a_store_would_give_it(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", seed=1)
    (source / ".cache").mkdir()
    (source / ".cache" / "half").write_text("not copied")
    added = VersionStore(tmp_path / "store").add(source, parent=None, profile="plain", origin="test")
    assert find(str(source), settings(tmp_path)).version() == content_id(source) == added.id


def test_a_version_that_the_store_has_not_is_named(tmp_path: Path) -> None:
    brightness(tmp_path)
    with pytest.raises(ValueError, match="no version v0123456789ab; give its store with --store"):
        run(settings(tmp_path, models=["v0123456789ab"], store=tmp_path / "store"))


def test_a_checkpoint_whose_service_does_not_start_leaves_its_last_words(tmp_path: Path) -> None:
    brightness(tmp_path)
    with pytest.raises(UserError, match="there is no checkpoint directory"):
        run(settings(tmp_path, models=[str(tmp_path / "none")]))
    assert not (tmp_path / "out" / ".store").exists()


def test_what_serves_is_compared_and_computed_again_without_it(listening: Listening, tmp_path: Path) -> None:
    brightness(tmp_path)
    there = run(settings(tmp_path, service=listening.url)).as_dict()
    assert run(settings(tmp_path, service=NOBODY)).as_dict() == there
    (row,) = csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines())
    assert (row["version"], row["n"], row["mode"]) == (listening.world.first, str(len(LEVELS)), "expected")


def test_what_serves_now_is_not_taken_for_what_served_before(listening: Listening, tmp_path: Path) -> None:
    brightness(tmp_path)
    run(settings(tmp_path, service=listening.url))
    listening.operators.post(f"/internal/versions/{listening.world.second}/promote").raise_for_status()
    with pytest.raises(ValueError, match=f"version {listening.world.first}, not of version {listening.world.second}"):
        run(settings(tmp_path, service=listening.url))


def test_predictions_of_a_version_are_enough_where_nothing_can_be_started(listening: Listening, tmp_path: Path) -> None:
    one = brightness(tmp_path)
    chosen = settings(tmp_path, service=listening.url, store=tmp_path / "no-store")
    first = evaluated(find("serving", chosen), [one], Stages())
    version = find(first.version, chosen)
    shutil.copytree(find("serving", chosen).folder, version.folder)
    assert evaluated(version, [one], Stages()) == first


def test_a_checkpoint_that_changed_is_not_taken_for_the_one_that_was_asked(
    listening: Listening, tmp_path: Path
) -> None:
    one, chosen = brightness(tmp_path), settings(tmp_path, service=listening.url)
    evaluated(find("serving", chosen), [one], Stages())
    changed = find(str(checkpoint(tmp_path / "mine", seed=9)), chosen)
    shutil.copytree(find("serving", chosen).folder, changed.folder)
    with pytest.raises(ValueError, match=f"version {listening.world.first}, not of version {changed.version()}"):
        evaluated(changed, [one], Stages())


def test_answers_in_another_profile_are_not_taken_for_those_that_are_asked(
    listening: Listening, tmp_path: Path
) -> None:
    one, chosen = brightness(tmp_path), settings(tmp_path, service=listening.url)
    evaluated(find("serving", chosen), [one], Stages())
    thinking = find("evoquality:owner/name", chosen)
    shutil.copytree(find("serving", chosen).folder, thinking.folder)
    with pytest.raises(ValueError, match="a service with profile plain, not of one with evoquality"):
        evaluated(thinking, [one], Stages())


def test_recorded_and_unrecorded_models_are_reported(
    listening: Listening, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brightness(tmp_path)
    (tmp_path / "key").write_text(KEY)
    places = {"service": listening.url, "operator": listening.operator_url, "operator_key_file": tmp_path / "key"}
    run(settings(tmp_path, **places))
    kept, elsewhere = tmp_path / "out" / "predictions" / "serving", "v0123456789ab"
    text = (kept / "brightness.jsonl").read_text().replace(listening.world.first, elsewhere)
    (kept.with_name(elsewhere)).mkdir()
    (kept.with_name(elsewhere) / "brightness.jsonl").write_text(text)
    run(settings(tmp_path, models=["serving", elsewhere], record=True, **places))
    said = capsys.readouterr().out
    assert f"recorded beside version {listening.world.first}" in said
    assert f"{elsewhere} was not recorded: the service lists no version {elsewhere}" in said
    with Client(listening.url) as client:
        (version,) = [one for one in client.versions().versions if one.id == listening.world.first]
    assert version.benchmarks["brightness"].n == len(LEVELS)
