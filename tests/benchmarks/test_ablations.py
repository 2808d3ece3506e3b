"""The ablations: their arms, what is left to run, and the tables of what came of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from safetensors.numpy import load_file
from scipy.stats import ttest_rel

from tests.benchmarks.ablations import study as studies
from tests.benchmarks.ablations import summary as tables
from tests.benchmarks.ablations.__main__ import main
from tests.benchmarks.ablations.arms import ABLATIONS, ARMS, DOMAIN, FIGURES, OUT_OF_DOMAIN
from tests.benchmarks.ablations.study import run
from tests.benchmarks.ablations.summary import difference, summarise
from tests.benchmarks.ablations.trial import Scale, Trial, gate_opinion, seconds_left, trials
from tests.benchmarks.checkpoint.pictures import make_pictures
from trainer.demo.assemble import EMBEDDED
from trainer.demo.benchmarks import SETS as BENCHMARKS
from trainer.demo.truth import KINDS
from trainer.errors import Collapsed, Unreachable
from trainer.files import write_json
from trainer.progress import Stages
from trainer.promotion import criteria
from trainer.promotion.behaviour import Behaviour
from trainer.settings.evolve import EvolveSettings

SCALE = Scale(groups=30, samples=12)
SETS = tuple(BENCHMARKS)
ALL_ARMS = list(ARMS.values())


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "pool").mkdir()
    return tmp_path


def evaluation(plcc: float) -> dict[str, Any]:
    """Of all sets, ten points worse where nothing of the domain is in them; `wild` counts on neither side."""
    worse = {name: 0.1 * (name in OUT_OF_DOMAIN) for name in SETS}
    sets = {name: {"plcc": plcc - worse[name], "srcc": plcc, "n": 10} for name in SETS}
    return {"benchmarks": sets, "weighted_plcc": plcc}


def row(arm: str, seed: int, number: int, plcc: float) -> dict[str, Any]:
    vote = {"accuracy_on_audit": 0.75, "ties": 20, "pairs": 80, "share_for_the_image_shown_first": 0.46}
    known = {"arm": arm, "seed": seed, "round": number, "relative_gain_percent": 30.0, "gate": {"passed": seed > 0}}
    return {**known, "vote": vote, **evaluation(plcc)}


def results(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"scale": {}, "starts": {"embedded": evaluation(0.5), "supervised": evaluation(0.7)}, "rounds": list(rows)}


@pytest.mark.parametrize("arm", ALL_ARMS, ids=list(ARMS))
def test_an_arm_is_made_of_settings_of_the_trainer(arm: Any, study: Path) -> None:
    settings = Trial(study, arm, 2).settings(1, SCALE, "http://127.0.0.1:1")
    assert settings.seed == 2
    assert {name: getattr(settings, name) for name in arm.settings} == dict(arm.settings)


def test_no_two_arms_are_the_same(study: Path) -> None:
    settings = [
        Trial(study, arm, 0).settings(1, SCALE, "x").model_dump(exclude={"run"}) | {"start": arm.start}
        for arm in ALL_ARMS
    ]
    assert all(one != other for one, other in combinations(settings, 2))


def test_every_round_is_shown_and_every_shown_round_is_run() -> None:
    shown = {(line.arm, line.round) for one in ABLATIONS.values() for line in one.lines if line.round}
    assert shown == {(arm.name, number) for arm in ALL_ARMS for number in range(1, arm.rounds + 1)}


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_table_compares_its_own_lines_by_figures_that_exist(name: str) -> None:
    labels = [line.label for line in ABLATIONS[name].lines]
    assert len(labels) == len(set(labels))
    assert {label for pair in ABLATIONS[name].compared for label in pair} <= set(labels)
    assert set(ABLATIONS[name].figures) <= FIGURES.keys()


def test_all_arms_have_one_seed_before_any_has_two(study: Path) -> None:
    order = trials(study, ALL_ARMS, 3)
    assert [trial.seed for trial in order] == sorted(trial.seed for trial in order)
    assert len(order) == 3 * len(ARMS)


def test_a_study_goes_on_at_the_scale_it_began_with_only(study: Path) -> None:
    write_json(Trial(study, ARMS["default"], 0).folder / "settings.json", {"groups": 30, "samples": 12})
    with pytest.raises(ValueError, match="started with --groups 30 --samples 12; use the same"):
        run(study, [], Scale(groups=60, samples=12))
    run(study, [], SCALE)


def test_a_study_that_cannot_go_on_ends_in_a_sentence(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(Trial(study, ARMS["default"], 0).folder / "settings.json", {"groups": 60, "samples": 12})
    monkeypatch.setattr("sys.argv", ["ablations", "--runs", str(study)])
    with pytest.raises(SystemExit) as end:
        typer.run(main)
    assert end.value.code == 2
    assert "started with --groups 60 --samples 12" in capsys.readouterr().err


def test_a_set_out_of_the_domain_has_none_of_its_distortions() -> None:
    taught = {kind for name in DOMAIN for kind in BENCHMARKS[name]}
    assert [name for name, kinds in BENCHMARKS.items() if taught.isdisjoint(kinds)] == sorted(
        OUT_OF_DOMAIN, key=list(BENCHMARKS).index
    )


def test_a_trial_goes_on_after_its_last_round(study: Path) -> None:
    trial = Trial(study, ARMS["default"], 0)
    assert trial.left == [1, 2, 3, 4]
    write_json(trial.result(1), {})
    assert trial.left == [2, 3, 4]


def test_a_trial_that_failed_has_nothing_left(study: Path) -> None:
    trial = Trial(study, ARMS["default"], 0)
    write_json(trial.result(1), {"failed": "it collapsed"})
    assert trial.left == []


@pytest.fixture
def ending(study: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], Trial]:
    """Runs the first round of a trial that ends so."""

    def run(end: Exception) -> Trial:
        def evolve(settings: EvolveSettings) -> None:
            raise end

        monkeypatch.setattr(studies, "evolve", evolve)
        monkeypatch.setattr(studies.Runner, "_serve", lambda *_: None)
        trial = Trial(study, ARMS["default"], 0)
        studies.Runner(study, SCALE, Stages(), "public", "operator", {"embedded": "v1"}).run_round(trial, 1)
        return trial

    return run


def test_a_collapse_is_the_result_of_its_trial(ending: Callable[[Exception], Trial]) -> None:
    trial = ending(Collapsed("the entropy is 0"))
    assert [result["failed"] for result in trial.results] == ["Collapsed: the entropy is 0"]


def test_a_service_that_does_not_answer_is_no_result(ending: Callable[[Exception], Trial], study: Path) -> None:
    with pytest.raises(Unreachable):
        ending(Unreachable("nobody answers"))
    assert Trial(study, ARMS["default"], 0).left == [1, 2, 3, 4]


def test_a_trial_begins_with_its_start_and_goes_on_with_what_it_promoted(study: Path) -> None:
    trial = Trial(study, ARMS["default"], 0)
    assert trial.serving("start") == "start"
    for number in (1, 2):
        write_json(trial.round(number) / "promotion.json", {"version": f"after {number}"})
    assert trial.serving("start") == "after 2"


def test_the_time_left_is_estimated_from_the_same_arm_where_one_is_done(study: Path) -> None:
    planned = trials(study, [ARMS["hard"], ARMS["soft"]], 2)
    assert seconds_left(planned) is None
    write_json(planned[0].result(1), {"seconds": 10})
    write_json(planned[0].result(2), {"seconds": 20})
    write_json(planned[1].result(1), {"seconds": 60})
    assert seconds_left(planned) == 60 + 2 * 15 + 2 * 60


def test_the_gate_stops_nothing_but_its_opinion_is_kept(study: Path) -> None:
    before = Behaviour(unreadable=0.02, agreement=1.0, mean=3, spread=0.7, scores={"a": 3.2, "b": 2.8, "c": 3})
    after = Behaviour(unreadable=0.5, agreement=0.0, mean=1.5, spread=1.9, scores={"a": 1.2, "b": 1.8, "c": 1.5})
    decided = {("a", "b"): 1.0, ("a", "c"): 1.0, ("c", "b"): 1.0}
    settings = Trial(study, ARMS["default"], 0).settings(1, SCALE, "x")
    verdict = criteria.judge(before, after, decided, settings)
    assert verdict.passed
    found = gate_opinion(verdict.as_dict(), decided)
    assert not found["passed"]
    assert len(found["reasons"]) == 4


def test_a_line_tells_mean_and_sample_deviation_over_the_seeds_there_are() -> None:
    plcc = [0.6, 0.64, 0.59]
    found = summarise(results(*(row("hard", seed, 1, value) for seed, value in enumerate(plcc))))
    line = found["tables"]["labels"]["lines"][0]
    assert line["label"] == "hard, round 1"
    assert line["seeds"] == 3
    assert line["gate_passed"] == 2
    weighted = np.array(plcc) - 0.1 * len(OUT_OF_DOMAIN) / len(SETS)
    assert line["plcc"] == {"mean": pytest.approx(weighted.mean()), "spread": pytest.approx(weighted.std(ddof=1))}
    assert line["ties"]["mean"] == 25


def test_soft_labels_have_no_ties() -> None:
    found = summarise(results(row("soft", 0, 1, 0.6), row("default", 0, 1, 0.6)))["tables"]["labels"]
    ties = {line["label"]: line["ties"] for line in found["lines"]}
    assert ties["probabilistic, round 1"] is None
    assert ties["hard with ties, round 1"] == {"mean": 25, "spread": None}


def test_lines_and_tables_without_a_seed_are_left_out() -> None:
    found = summarise(results(row("stacked", 0, 1, 0.72)))
    assert list(found["tables"]) == ["stacking"]
    lines = found["tables"]["stacking"]["lines"]
    assert [line["label"] for line in lines] == ["supervised", "round 1"]
    assert lines[0]["out_of_domain"] == {"mean": pytest.approx(0.6), "spread": None}
    assert lines[0]["in_domain"]["mean"] == pytest.approx(0.7)


def test_failed_trials_are_counted_in_the_lines_they_did_not_reach() -> None:
    failed = {"arm": "soft", "seed": 1, "round": 2, "failed": "it collapsed"}
    rows = [row("soft", 0, 1, 0.6), row("soft", 0, 2, 0.6), row("soft", 1, 1, 0.6), failed]
    lines = summarise(results(*rows))["tables"]["labels"]["lines"]
    assert [(line["label"], line["seeds"], line["failed"]) for line in lines] == [
        ("probabilistic, round 1", 2, 0),
        ("probabilistic, round 2", 1, 1),
    ]


def test_a_line_that_all_seeds_failed_to_reach_says_so() -> None:
    failed = [{"arm": "informative", "seed": seed, "round": 1, "failed": "it collapsed"} for seed in range(3)]
    found = summarise(results(*failed))["tables"]["pairs"]
    assert tables.in_markdown(found).endswith("| informative | – | – | – | – | 0, 3 failed |  | no figure known |")


def test_differences_are_paired_by_seed() -> None:
    first, second = {0: 0.70, 1: 0.66, 2: 0.71, 5: 0.1}, {2: 0.69, 1: 0.6, 0: 0.67, 4: 0.9}
    found = difference(first, second)
    interval = ttest_rel([0.70, 0.66, 0.71], [0.67, 0.6, 0.69]).confidence_interval(0.95)
    assert found["seeds"] == 3
    assert (found["low"], found["high"]) == pytest.approx(tuple(interval))
    assert found["difference"] == pytest.approx((0.03 + 0.06 + 0.02) / 3)


def test_one_seed_has_a_difference_but_no_interval() -> None:
    assert difference({0: 0.7}, {0: 0.5})["low"] is None


def test_a_table_shows_the_paper_beside_and_says_where_it_gives_no_figure() -> None:
    rows = [row("default", seed, number, 0.6 + 0.01 * seed) for seed in range(3) for number in (1, 2, 3, 4)]
    shown = tables.in_markdown(summarise(results(*rows))["tables"]["rounds"]).splitlines()
    assert shown[0] == "|  | PLCC | gain, % | SRCC | votes right, % | seeds | gate would pass | the paper |"
    assert shown[2] == "| before | 0.443 | – | 0.500 | – |  |  | 0.615 |"
    assert shown[3] == "| round 1 | 0.553 ± 0.010 | 30.0 ± 0.0 | 0.610 ± 0.010 | 75.0 ± 0.0 | 3 | 2 of 3 | 0.751 |"
    assert shown[5].endswith("| 3 | 2 of 3 | no figure known |")


def test_comparisons_come_with_their_interval() -> None:
    rows = [row("default", seed, 1, 0.6 + 0.01 * seed) for seed in range(3)]
    found = summarise(results(*rows))["tables"]["rounds"]
    assert "round 1 - before +0.110 (+0.085 to +0.135)" in tables.comparisons(found)[0]
    assert tables.comparisons(found)[0] in tables.page({"rounds": found})


def test_the_readme_gets_the_published_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = summarise(results(row("default", 0, 1, 0.6)))
    monkeypatch.setattr(tables, "FILE", tmp_path / "ablations.json")
    write_json(tables.FILE, found)
    assert tables.table("rounds") == tables.in_markdown(found["tables"]["rounds"])


def test_the_supervised_checkpoint_differs_in_its_weights_alone(tmp_path: Path) -> None:
    studies.make_supervised(tmp_path, contents=range(7200, 7201), steps=1)
    for file in tmp_path.iterdir():
        same = file.read_bytes() == (EMBEDDED / file.name).read_bytes()
        assert same == (file.name != "model.safetensors"), file.name
    tuned, base = (load_file(folder / "model.safetensors") for folder in (tmp_path, EMBEDDED))
    changed = {name for name in base if not np.array_equal(tuned[name], base[name])}
    assert any(name.startswith("model.layers.") for name in changed)
    assert not any(name.startswith("visual.blocks.") for name in changed)


def test_pictures_can_be_of_some_distortions_alone() -> None:
    kinds = [kind for name in DOMAIN for kind in BENCHMARKS[name]]
    shown = make_pictures("train", range(7200, 7201), 1, kinds).kinds.any(0)
    assert {kind for kind, there in zip(KINDS, shown, strict=True) if there} <= set(kinds)
