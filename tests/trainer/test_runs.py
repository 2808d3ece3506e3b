"""A run as its user meets it: what it refuses before it writes anything, what it keeps, and what it passes over."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from tests.service.conftest import KEY, picture
from tests.trainer.replicas import Replicas
from tests.trainer.vision_models import PLAIN, qwen3_vl
from trainer.cli import app
from trainer.files import read_json, write_json
from trainer.pool.pool import Pool
from trainer.progress import Stages
from trainer.settings.evolve import EvolveSettings
from trainer.stages import start as starting
from trainer.stages.context import RoundContext
from trainer.stages.fit import fit_memory
from trainer.stages.offline import ask_votes, draw_groups, draw_pool, make_variants
from trainer.stages.start import start
from trainer.training.choices import with_choices
from trainer.training.learner import Learner
from trainer.training.policy import LoraPolicy
from trainer.voting.votes import load

Evolve = Callable[..., tuple[int, str]]
SMALL = {"groups": 3, "group_size": 3, "held_back_groups": 1, "variants": 2, "rounds": 1}


def in_words(score: str, vote: str = "0") -> Callable[..., str]:
    """An engine's answer, by the task."""
    return lambda prompt, *_: score if prompt.task == "score" else vote


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures, each brighter than the one before."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture(20 * number))
    return tmp_path / "photos"


@pytest.fixture
def evolve(
    replicas: Replicas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Evolve:
    """The command, in this process, on tmp_path / "run". Returns its exit code and all that it said."""
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setattr("trainer.round.fit_memory", lambda *_: None)  # the store's versions hold no model

    def call(pool: Path, *more: object, **changes: object) -> tuple[int, str]:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL | changes).items()]
        where = [f"--pool={pool}", f"--run={tmp_path / 'run'}", f"--store={replicas.first.store.root}"]
        reached = [f"--operator={replicas.urls[0]}", f"--operator-key-file={tmp_path / 'key'}", "--no-tensorboard"]
        monkeypatch.setattr(sys, "argv", ["evoquality-trainer", "evolve", *where, *reached, *flags, *map(str, more)])
        try:
            app()
        except SystemExit as end:
            return int(end.code or 0), "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    return call


@pytest.fixture
def begun(replicas: Replicas, photos: Path, tmp_path: Path) -> Iterator[RoundContext]:
    """A round that has begun."""
    where = {"pool": photos, "run": tmp_path / "run", "store": replicas.first.store.root}
    settings = with_choices(EvolveSettings(**where, **SMALL))
    with replicas.workers() as workers:
        context = RoundContext(1, settings, workers, Stages())
        start(context)
        yield context


@pytest.fixture
def finished(begun: RoundContext, replicas: Replicas) -> RoundContext:
    """A run of one round, which promoted the store's second version."""
    write_json(begun.settings.run / "settings.json", begun.settings.model_dump(mode="json"))
    begun.workers.promote(replicas.first.second, replicas.first.first)
    for name in ("pool.jsonl", "gate.json", "promotion.json"):
        write_json(begun.folder / name, {})
    promotion = {"version": replicas.first.second, "previous": replicas.first.first, "blackout_ms": 1, "reload_ms": 1}
    write_json(begun.folder / "promotion.json", promotion)
    write_json(begun.folder / "gate.json", {"passed": True, "reasons": [], "criteria": []})
    return begun


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What is in a folder, and when it was written; without locks."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rate": 0.5}, "--learning-rate 0.5 (was 0.001)"),
        ({"groups": 7, "beta": 0.3}, "--groups 7 (was 3), --beta 0.3 (was 0.02)"),
        ({"seed": 4, "rounds": 3}, "--seed 4 (was 0)"),
        ({"gate_drift": 0.3}, "--gate-drift 0.3 (was 1.0)"),
    ],
)
def test_a_finished_run_refuses_other_settings_by_name_and_changes_no_file(
    finished: RoundContext, evolve: Evolve, photos: Path, changes: dict[str, object], told: str
) -> None:
    assert evolve(photos)[0] == 0
    before = files(finished.settings.run)
    code, said = evolve(photos, **changes)
    assert (code, told in said.replace("\n", " ")) == (2, True)
    assert files(finished.settings.run) == before


def test_a_finished_run_refuses_another_pool(finished: RoundContext, evolve: Evolve, photos: Path) -> None:
    code, said = evolve(photos.parent)
    assert code == 2
    assert f"--pool {photos.parent} (was {photos})" in said


def test_a_finished_run_says_what_it_made_and_that_it_serves(
    finished: RoundContext, evolve: Evolve, photos: Path, replicas: Replicas
) -> None:
    said = f"already done: version {replicas.first.second} was promoted in round 1"
    assert evolve(photos, patience=7) == (0, f"{said} and serves\n")
    finished.workers.promote(replicas.first.first, replicas.first.second)
    assert evolve(photos) == (0, f"{said}\n")


def test_a_refusal_of_the_version_that_serves_changes_no_file_of_the_run(
    begun: RoundContext, evolve: Evolve, photos: Path, replicas: Replicas
) -> None:
    write_json(begun.settings.run / "settings.json", begun.settings.model_dump(mode="json"))
    write_json(begun.settings.run / "id.json", "0")
    begun.workers.promote(replicas.first.second, replicas.first.first)
    before = files(begun.settings.run)
    assert evolve(photos, patience=9)[0] == 4
    assert files(begun.settings.run) == before


def test_more_rounds_go_on_from_those_that_are_done(
    finished: RoundContext, evolve: Evolve, photos: Path, replicas: Replicas
) -> None:
    replicas.worlds[0].engine.answer = in_words("3.00", "0")  # the second round ends at its votes
    code, said = evolve(photos, rounds=2)
    assert (code, "already done" in said, "round 2: votes: done" in said) == (45, True, True)
    assert read_json(finished.settings.run / "round-2" / "start.json")["settings"]["rounds"] == 2
    assert [entry["round"] for entry in read_json(finished.settings.run / "report.json")["rounds"]] == [0, 1, 2]


def test_the_report_tells_each_rounds_settings_as_the_round_began_with_them(
    finished: RoundContext, evolve: Evolve, photos: Path
) -> None:
    run = finished.settings.run
    write_json(run / "settings.json", {"beta": 9.5})
    assert evolve(photos)[0] == 0
    assert read_json(run / "report.json")["rounds"][1]["settings"]["beta"] == 0.02
    page = (run / "report.html").read_text()
    assert re.search(r"beta</th><td>0.02</td>", page) and "9.5" not in page


def test_limits_may_change_until_they_were_applied_and_the_round_records_the_last(begun: RoundContext) -> None:
    def changed(**update: object) -> RoundContext:
        settings = begun.settings.model_copy(update=update)
        return RoundContext(1, settings, begun.workers, begun.stages)

    start(changed(gate_drift=0.5))
    assert read_json(begun.folder / "start.json")["settings"]["gate_drift"] == 0.5
    write_json(begun.folder / "gate.json", {})
    with pytest.raises(ValueError, match=r"--gate-drift 0.7 \(was 0.5\)"):
        start(changed(gate_drift=0.7))
    start(changed(gate_drift=0.5, regression_drift=0.9))


def test_every_setting_that_may_change_exists() -> None:
    fields = EvolveSettings.model_fields
    assert fields.keys() >= starting._MAY_CHANGE
    assert all(any(name.startswith(limit) for name in fields) for limit in starting._MAY_CHANGE_UNTIL)


def copies(folder: Path) -> Path:
    """One picture as twelve different files."""
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes(picture(120) + bytes([number]))
    return folder


def test_a_pool_of_one_picture_many_times_stops_before_the_training(
    evolve: Evolve, replicas: Replicas, tmp_path: Path
) -> None:
    code, said = evolve(copies(tmp_path / "copies"), variants=0, group_size=4, groups=5)
    assert code == 45
    assert "nothing to learn from: the votes decide 0 of" in said and "more different pictures" in said
    folder = tmp_path / "run" / "round-1"
    pairs = len(load(folder / "votes.jsonl"))
    assert not (folder / "train").exists() and pairs > 20
    assert replicas.first.store.active().version == replicas.first.first


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (in_words("3.00", "0"), "0 have no readable answer; begin a new run with a --pool of more different pictures"),
        (in_words("3.00", "Both."), "no readable answer; serve the model with the --profile of the format"),
    ],
    ids=["always the first", "unreadable"],
)
def test_votes_that_decide_nothing_stop_the_round_with_the_figures_and_a_fitting_remedy(
    evolve: Evolve, replicas: Replicas, photos: Path, answer: Callable[..., str], told: str
) -> None:
    for world in replicas.worlds:
        world.engine.answer = answer
    code, said = evolve(photos, votes_by="samples", votes=4, base_unreadable=1)
    assert (code, told in said.replace("\n", " ")) == (45, True)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            in_words(r"<think>It is sharp.</think> \boxed{3.50}"),
            "20 of its first 20 answers about pictures are unreadable (100%; --base-unreadable allows 50%), 20 of them "
            "cut off by the token limit; one says '<think'; asked in the other profiles, 20 of 20 are readable as "
            "evoquality, 0 of 20 are readable as visualquality-r1: serve the checkpoint with --profile evoquality from "
            "a new --store, and begin a new run",
        ),
        (in_words("<answer>4</answer>"), "with --profile visualquality-r1 from a new --store"),
        (
            in_words("It is good."),
            "0 of 20 are readable as visualquality-r1: begin a new run with a --base that was tuned",
        ),
        (in_words("3.00", "The first."), "20 of its first 20 answers about pairs of pictures are unreadable"),
    ],
    ids=["boxed", "answer tags", "words", "only votes"],
)
def test_a_base_that_does_not_speak_its_profile_stops_before_the_votes_with_the_profiles_that_would_read_it(
    evolve: Evolve, replicas: Replicas, photos: Path, tmp_path: Path, answer: Callable[..., str], told: str
) -> None:
    engine = replicas.worlds[0].engine
    engine.answer = answer
    for _ in range(2):  # when it is started again, too
        code, said = evolve(photos, groups=9)
        assert (code, told in said.replace("\n", " ")) == (46, True), said
    folder = tmp_path / "run" / "round-1"
    assert [len(answers) for answers in read_json(folder / "answers.json").values()] == [40] * 3
    assert not (folder / "votes.jsonl").exists()


def test_a_base_that_speaks_its_profile_most_of_the_time_goes_on(
    evolve: Evolve, replicas: Replicas, photos: Path
) -> None:
    count = iter(range(10_000))
    for world in replicas.worlds:
        plain = world.engine.answer
        world.engine.answer = lambda *given, plain=plain: "no" if next(count) % 3 == 0 else plain(*given)
    code, said = evolve(photos, least_decided=1)
    assert code == 45, said


def test_a_model_that_the_trainer_would_train_wrongly_stops_before_the_votes(
    evolve: Evolve, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: object) -> Learner:
        where = EvolveSettings(pool=photos, run=tmp_path / "run")
        return Learner(LoraPolicy(qwen3_vl(tmp_path / "base"), PLAIN, rank=4, seed=0), where)

    monkeypatch.setattr("trainer.round.fit_memory", fit_memory)
    monkeypatch.setattr("trainer.stages.fit.learner.begin", begin)
    code, said = evolve(photos)
    assert (code, "log-probabilities of Qwen3VLForConditionalGeneration" in said.replace("\n", " ")) == (2, True)
    assert not (tmp_path / "run" / "round-1" / "votes.jsonl").exists()


def test_too_few_decided_pairs_stop_the_round_and_the_least_is_a_setting(evolve: Evolve, photos: Path) -> None:
    code, said = evolve(photos, least_decided=1)
    assert code == 45
    assert "--least-decided asks for more than 100%" in said


@pytest.mark.parametrize(
    "harm",
    [
        lambda photo: photo.unlink(),
        lambda photo: photo.write_bytes(photo.read_bytes()[:40]),
        lambda photo: photo.write_bytes(picture(7)),
        lambda photo: (photo.unlink(), photo.mkdir()),
    ],
    ids=["moved away", "truncated", "another picture", "unreadable"],
)
def test_a_round_goes_on_whatever_happens_to_the_photographs_that_it_drew(
    begun: RoundContext, photos: Path, harm: Callable[[Path], object]
) -> None:
    drawn = draw_pool(begun)
    for photo in photos.iterdir():
        harm(photo)
    again = draw_pool(begun)
    assert again.images == drawn.images
    training, held_back = draw_groups(begun, again)
    make_variants(begun, again, [*training, *held_back])
    votes = ask_votes(begun, again, [*training, *held_back])
    assert len(votes) >= 9
    assert {image for group in training for image in group} <= again.by_id.keys()


def test_a_resumed_round_needs_the_pool_no_more_once_it_was_drawn(
    begun: RoundContext, evolve: Evolve, photos: Path
) -> None:
    draw_pool(begun)
    rmtree(photos)
    code, said = evolve(photos, least_decided=1)
    assert (code, "round 1: votes: done" in said) == (45, True)


def test_a_photograph_that_goes_while_the_pool_is_drawn_is_passed_over_and_told(
    begun: RoundContext, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Pool.bytes_of
    gone = sorted(photos.iterdir())[0]

    def moved(pool: Pool, image: str) -> bytes:
        if pool.images[0].path == str(gone):
            gone.unlink()
        return copied(pool, image)

    monkeypatch.setattr(Pool, "bytes_of", moved)
    begun.settings.images = 12
    pool = draw_pool(begun)
    assert len({image.source for image in pool.images}) == 11
    assert (
        f"1 of the pool's 12 entries cannot be read: gone or changed while the pool was drawn (1); the first: {gone}"
        in (capsys.readouterr().out)
    )


def test_a_pool_of_which_most_cannot_be_read_stops_with_its_figures_and_goes_on_if_told_to(
    evolve: Evolve, photos: Path, tmp_path: Path
) -> None:
    names = [f"photos/{number}.png" for number in (3, *range(50, 55))]
    (tmp_path / "list.txt").write_text("\n".join(names))
    code, said = evolve(tmp_path / "list.txt")
    told = said.replace("\n", " ")
    assert code == 2
    assert "5 of the pool's 6 entries cannot be read: there is no such file (5); the first: " in told
    assert "50.png" in told and "52.png" in told and "53.png" not in told
    assert "relative to the list" in told and "--pool-unreadable" in told
    assert "there is no such file (5)" in (tmp_path / "run" / "report.html").read_text()
    code, said = evolve(tmp_path / "list.txt", pool_unreadable=0.9, least_decided=1)
    assert (code, "5 of the pool's 6 entries cannot be read" in said.replace("\n", " ")) == (45, True)


def test_a_few_unreadable_entries_are_told_in_the_log_and_in_the_report(
    evolve: Evolve, photos: Path, tmp_path: Path
) -> None:
    (photos / "torn.png").write_bytes(picture(9)[:50])
    _, said = evolve(photos, images=20, least_decided=1)
    assert "1 of the pool's 13 entries cannot be read: The bytes are not a complete image" in said
    report = read_json(tmp_path / "run" / "report.json")["rounds"][1]["pool"]
    assert (report["unreadable"], report["first_unreadable"]) == (1, [str(photos / "torn.png")])
