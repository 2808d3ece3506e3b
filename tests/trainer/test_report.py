"""The report of a run, from its files alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from trainer.evaluation.pseudo_labels.figures import beside_truth
from trainer.files import append_jsonl, read_json, write_json, write_jsonl
from trainer.pool.pool import content_id
from trainer.reporting.page import examples
from trainer.reporting.report import write_report
from trainer.reporting.rounds import costs
from trainer.training.fit import Fit
from trainer.voting.votes import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NAMES = "abcdef"
SETS = {"<b>blur</b>": 0.5, "noise": 0.4}


def pictures(folder: Path) -> dict[str, str]:
    """Six pictures by their names, and the manifest of a pool of them."""
    ids, rows = {}, []
    for number, name in enumerate(NAMES):
        path = folder / f"{name}.png"
        Image.new("RGB", (40, 30), (40 * number, 90, 200)).save(path)
        ids[name] = content_id(path.read_bytes())
        rows.append({"id": ids[name], "path": str(path), "source": ids[name], "kind": None, "level": None})
    write_jsonl(folder / "pool.jsonl", rows)
    return ids


def vote(ids: dict[str, str], pair: str, first: int, second: int) -> dict[str, object]:
    one, other = (ids[name] for name in pair)
    votes = {"forward": [first, second], "backward": [0, 0], "unreadable": 1, "version": "v1"}
    return {"first": one, "second": other, **votes}


def evaluation(version: str, gain: float) -> dict[str, object]:
    sets = {name: {"plcc": plcc + gain, "plcc_fitted": plcc, "srcc": plcc, "n": 10} for name, plcc in SETS.items()}
    return {"version": version, "benchmarks": sets, "weighted_plcc": 0.45 + gain, "unreadable": 0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose first round was promoted and whose second the gate refused."""
    write_json(tmp_path / "settings.json", {"pool": "photos", "seed": 0})
    write_json(tmp_path / "evaluations" / "round-0.json", evaluation("v1", 0.0))
    write_json(tmp_path / "evaluations" / "round-1.json", evaluation("v2", 0.09))
    for number in (1, 2):
        folder = tmp_path / f"round-{number}"
        folder.mkdir()
        ids = pictures(folder)
        write_jsonl(folder / "votes.jsonl", [vote(ids, *row) for row in (("ab", 8, 0), ("cd", 4, 4), ("ef", 1, 6))])
        steps = [{"step": n, "reward": 0.5 + n / 100, "kl": 0.0, "rollout_seconds": 1.0} for n in range(30)]
        append_jsonl(folder / "train" / "steps.jsonl", steps)
        criterion = {
            "name": "spread",
            "before": 0.5,
            "after": 0.1,
            "limit": 0.2,
            "passed": number == 1,
            "reason": "flat",
        }
        reasons = [] if number == 1 else ["its scores are flat"]
        scores = [dict(zip(ids.values(), row, strict=True)) for row in ((2, 3, 1, 1, 4, 4), (3, 2, 1, 1, 2, 3))]
        before, after = ({"scores": row} for row in scores)
        gate = {"passed": number == 1, "before": before, "after": after, "criteria": [criterion], "reasons": reasons}
        write_json(folder / "gate.json", gate)
        write_json(folder / "pairs.json", {"training": [], "held_back": [list(ids.values())]})
        began = 100.0 * number
        append_jsonl(
            tmp_path / "stages.jsonl", [{"stage": f"round {number}: votes", "began": began, "ended": began + 30}]
        )
    swap = {"version": "v2", "previous": "v1", "blackout_ms": 150.0, "reload_ms": 60.0, "drain_ms": 9.0}
    write_json(tmp_path / "round-1" / "promotion.json", swap)
    audit = {
        "accuracy_on_audit": 0.5,
        "pairs_audited": 2,
        "right": [[ids["e"], ids["f"]]],
        "wrong": [[ids["a"], ids["b"]]],
    }
    write_json(tmp_path / "round-1" / "audit.json", audit)
    memory = Fit("cpu", "float32", "on", 4_096, passes=3, held=10**9, pass_bytes=10**10, free=10**11)
    write_json(tmp_path / "round-1" / "memory.json", asdict(memory))
    return tmp_path


def test_the_page_holds_everything_itself_and_asks_nothing_of_others(run: Path) -> None:
    write_report(run)
    page = (run / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "<link" not in page and "@import" not in page and "<script" not in page
    assert "<b>blur</b>" not in page


def test_the_page_tells_how_a_step_was_fitted_into_the_memory(run: Path) -> None:
    assert write_report(run)["rounds"][1]["memory"]["passes"] == 3
    page = (run / "report.html").read_text()
    assert "10.0 GB for the largest pass, of 100.0 GB. At most 4,096 tokens a pass (3 a step)" in page
    assert "activations computed again, float32" in page


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ({"mode": "expected"}, "of expected scores"),
        ({"mode": "sampled", "samples": 8}, "of the mean of 8 sampled scores"),
    ],
)
def test_the_page_tells_how_scores_were_asked_for(run: Path, protocol: dict[str, object], said: str) -> None:
    for number, version in enumerate(("v1", "v2")):
        file = run / "evaluations" / f"round-{number}.json"
        write_json(file, evaluation(version, 0.09 * number) | {"protocol": protocol})
    write_report(run)
    assert said in (run / "report.html").read_text()


def test_the_page_tells_how_log_probabilities_are_computed_and_why_not_faster(run: Path) -> None:
    apart = {"mean": 2e-6, "high": 9e-6}
    found = {"way": "repeated prefix", "rejected": {"shared prefix": "it raises KeyError"}, "exact": apart}
    write_json(run / "round-1" / "self_check.json", found | {"rounded": apart, "noise": {"mean": 0.0, "high": 0.0}})
    assert write_report(run)["rounds"][1]["self_check"]["way"] == "repeated prefix"
    page = (run / "report.html").read_text()
    assert "not computed by the shared prefix, which is faster: it raises KeyError" in page
    assert "<dd>repeated prefix</dd>" in page and "<dd>2e-06</dd>" in page
    assert "in 16 bits" not in page


def test_figures_are_those_of_the_files(run: Path) -> None:
    report = write_report(run)
    assert report["relative_gain_percent"] == pytest.approx(100 * (0.09 / 0.5 + 0.09 / 0.4) / 2)
    first = report["rounds"][1]["vote"]
    assert (first["pairs"], first["ties"], first["accuracy_on_audit"]) == (3, 1, 0.5)
    assert first["mean_margin"] == pytest.approx((1 + 0 + 5 / 7) / 3)
    assert report["rounds"][1]["training"]["last"]["reward"] == pytest.approx(0.78)
    assert [swap["version"] for swap in report["swaps"]] == ["v2"]


def test_a_refusal_is_told_with_its_reason_and_every_criterion(run: Path) -> None:
    write_report(run)
    page = (run / "report.html").read_text()
    assert "Refused, because its scores are flat." in page
    assert re.search(r"spread</th><td>0.500</td><td>0.100</td><td>0.200</td><td class=\"bad\">failed", page)


def test_the_report_tells_how_scores_agree_with_votes_on_held_back_pairs_by_how_decided_those_are(run: Path) -> None:
    rows = write_report(run)["rounds"][1]["gate"]["agreement_by_margin"]
    assert [(row["pairs"], row["margin"], row["before"], row["after"]) for row in rows] == [
        (1, pytest.approx(5 / 7), 0.5, 1.0), (1, 1.0, 0.0, 1.0),
    ]  # fmt: skip
    assert (run / "report.html").read_text().count("<figcaption>Held-back pairs scored in the order voted") == 2


def test_examples_are_the_most_decided_the_closest_and_those_an_audit_knows(run: Path) -> None:
    shown = examples(run / "round-1")
    shares = {
        title: [[round(share, 2) for share in pair["shares"]] for pair in pairs] for title, pairs in shown.items()
    }
    assert shares == {
        "Most decided": [[1.0, 0.0], [0.14, 0.86], [0.5, 0.5]],
        "Closest": [[0.5, 0.5], [0.14, 0.86], [1.0, 0.0]],
        "Known to be right": [[0.14, 0.86]],
        "Known to be wrong": [[1.0, 0.0]],
    }
    assert set(examples(run / "round-2")) == {"Most decided", "Closest"}


def test_the_page_tells_how_good_each_rounds_votes_are_and_what_only_an_audit_knows(run: Path) -> None:
    folder = run / "round-1"
    votes = load(folder / "votes.jsonl")
    truth = {image: float(number) for number, vote in enumerate(votes) for image in (vote.first, vote.second)}
    truth[votes[0].first] += 1
    write_json(folder / "audit.json", read_json(folder / "audit.json") | beside_truth(votes, truth) | {"changes": None})
    first, second = (entry["vote"] for entry in write_report(run)["rounds"][1:])
    assert first["accuracy"]["label"]["share"] == 1
    assert "accuracy" not in second
    assert first["cycles"] == second["cycles"]
    page = (run / "report.html").read_text()
    assert re.search(r"right, a tie counting half</th><td>100.0 % \(20.7 to 100.0\)</td><td>–</td>", page)
    assert page.count("<figcaption>Right, by the true difference") == 1


def test_a_pair_whose_picture_is_gone_is_left_out(run: Path) -> None:
    (run / "round-1" / "a.png").unlink()
    assert [len(pairs) for pairs in examples(run / "round-1").values()] == [2, 2, 1]


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    write_json(tmp_path / "settings.json", {"pool": "photos"})
    (tmp_path / "round-1").mkdir()
    assert write_report(tmp_path)["rounds"] == [{"round": 0}, {"round": 1}]
    assert "photos" in (tmp_path / "report.html").read_text()


def test_a_stage_that_was_taken_up_again_costs_all_its_attempts() -> None:
    attempts = [("votes", 0.0, 10.0), ("gate", 10.0, 20.0), ("votes", 30.0, 50.0)]
    stages = [{"stage": f"round 1: {name}", "began": began, "ended": ended} for name, began, ended in attempts]
    found = costs(stages, [{"round": 1, "vote": {"pairs": 3, "votes": 24}}])
    assert [(row["seconds"], row["share"], row["counts"]) for row in found] == [
        (30.0, 0.75, {"pairs": 3, "votes": 24}), (10.0, 0.25, {}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]  # root in a container has neither
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=flags)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("dark", 360)])
def test_a_browser_shows_the_page_without_a_complaint(run: Path, browser: Browser, scheme: str, width: int) -> None:
    write_report(run)
    said: list[str] = []
    with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}) as window:
        page = window.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto((run / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert page.locator("img").count() == 2 * (3 + 3 + 1 + 1 + 3 + 3)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert said == []
    assert colour == {"light": "rgb(247, 246, 243)", "dark": "rgb(18, 19, 20)"}[scheme]
