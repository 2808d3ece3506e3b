"""Fitting a step into the memory: what is free, what a pass takes, what is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from service.versions.store import VersionStore
from tests.trainer.learning import ENGINE
from tests.trainer.vision_models import PLAIN, embedded_shape, picture
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.progress import Stages
from trainer.settings.evolve import EvolveSettings
from trainer.stages.context import RoundContext
from trainer.stages.fit import fit_memory
from trainer.stages.fit import fitted as with_fit
from trainer.training import fit as fitting
from trainer.training.device_memory import free_bytes, left_by_cgroups, peak_bytes
from trainer.training.fit import MEASURING, Fit, Load, fit
from trainer.training.learner import begin
from trainer.training.passes import MOST_TOKENS
from trainer.workers.workers import Workers

CPU = torch.device("cpu")
MIB = 2**20
LOAD = Load([picture(seed, 112, 112) for seed in range(3)], samples=8, answer=32)
Fitted = Callable[..., Fit]


def test_the_peak_of_some_work_is_what_it_holds_at_once() -> None:
    def work() -> None:
        first = torch.zeros(MIB // 4)
        second = first + 1
        del first
        second.exp_()

    assert peak_bytes(work, CPU) == pytest.approx(2 * MIB, rel=0.01)


def test_no_more_is_free_than_the_kernel_has() -> None:
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 0 < free_bytes(CPU) <= int(memory["MemTotal"].split()[0]) * 1024


@pytest.mark.parametrize(
    ("line", "root", "limit", "used", "files"),
    [
        ("0::/pod/container", "", "memory.max", "memory.current", "inactive_file"),
        ("4:memory:/pod/container", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_the_limits_of_cgroups_count_and_files_in_memory_do_not(
    tmp_path: Path, line: str, root: str, limit: str, used: str, files: str
) -> None:
    for folder, most in {"pod": "1000", "pod/container": "600", "pod/other": "1"}.items():
        made = tmp_path / root / folder
        made.mkdir(parents=True)
        (made / limit).write_text(most)
        (made / used).write_text("500")
        (made / "memory.stat").write_text(f"cache 9\n{files} 50\n")
    assert sorted(left_by_cgroups([line, "1:cpu:/pod"], tmp_path)) == [150, 550]
    (tmp_path / root / "pod/container" / limit).write_text("max")
    if not root:
        assert list(left_by_cgroups([line], tmp_path)) == [550]


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fitted:
    """Fits a step on a machine with so many free bytes."""
    checkpoint = embedded_shape(tmp_path)

    def run(free: int, **settings: object) -> Fit:
        monkeypatch.setattr(fitting, "free_bytes", lambda device: free)
        asked = EvolveSettings(pool=tmp_path, run=tmp_path, dtype="float32", **settings)
        learner = begin(checkpoint, PLAIN, asked.model_copy(update=MEASURING), 0, ENGINE)
        return fit(learner, LOAD, asked)

    return run


def test_with_room_for_a_step_it_is_one_pass_that_keeps_its_activations(fitted: Fitted) -> None:
    found = fitted(2**35)
    assert (found.passes, found.gradient_checkpointing, found.tokens_per_pass) == (1, "off", MOST_TOKENS)
    assert found.held < found.pass_bytes < 2**30
    assert f"{MOST_TOKENS:,} tokens a pass" in str(found)


def test_with_less_room_a_step_is_cut_and_what_is_chosen_fits(fitted: Fitted) -> None:
    whole = fitted(2**35)
    cut = fitted(2 * (whole.held + whole.pass_bytes // 4))
    assert cut.passes > 1
    assert cut.held + cut.pass_bytes <= cut.free / 2


def test_activations_are_computed_again_where_larger_passes_save_more(fitted: Fitted) -> None:
    one = fitted(2**35, tokens_per_pass=1)
    found = fitted(2 * one.held + int(2.1 * one.pass_bytes))
    kept = fitted(2 * one.held + int(2.1 * one.pass_bytes), gradient_checkpointing="off")
    assert (found.gradient_checkpointing, kept.gradient_checkpointing) == ("on", "off")
    assert found.passes < kept.passes


def test_what_the_settings_say_is_measured_and_not_changed(fitted: Fitted) -> None:
    found = fitted(1, tokens_per_pass=300, gradient_checkpointing="on")
    assert (found.tokens_per_pass, found.gradient_checkpointing) == (300, "on")
    assert found.pass_bytes > 0


def test_without_room_for_one_answer_the_run_ends_with_what_to_do(fitted: Fitted) -> None:
    with pytest.raises(UserError, match=r"one answer of 32 tokens .* does not fit .*--pixels"):
        fitted(MIB)


@pytest.fixture
def context(tmp_path: Path) -> RoundContext:
    """The first round of a run on a random version."""
    store = VersionStore(tmp_path / "store")
    (tmp_path / "checkpoint").mkdir()
    version = store.add(embedded_shape(tmp_path / "checkpoint"), parent=None, profile="plain", origin="test")
    settings = EvolveSettings(pool=tmp_path, run=tmp_path, store=store.root, dtype="float32", samples=4)
    write_json(tmp_path / "round-1" / "start.json", {"version": version.id})
    engine = ENGINE.model_copy(update={"profile": "plain", "max_answer_tokens": None})
    return RoundContext(1, settings, cast(Workers, SimpleNamespace(info=lambda: engine)), Stages())


def drawn(folder: Path, seed: int) -> PoolImage:
    path = folder / f"{seed}.png"
    picture(seed, 112, 112).save(path)
    name = content_id(path.read_bytes())
    return PoolImage(name, str(path), name)


def test_a_round_tells_what_it_chose_measures_once_and_again_for_other_settings(
    context: RoundContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, file = Pool([drawn(tmp_path, seed) for seed in range(2)]), context.folder / "memory.json"
    groups = [[image.id for image in images.images]]
    fit_memory(context, images, groups)
    told = capsys.readouterr().out
    assert f"at most {MOST_TOKENS:,} tokens a pass (1 a step), activations kept, float32" in told
    assert with_fit(context).tokens_per_pass == MOST_TOKENS
    measured = file.stat().st_mtime_ns
    fit_memory(context, images, groups)
    assert (file.stat().st_mtime_ns, capsys.readouterr().out) == (measured, "")
    other = replace(context, settings=context.settings.model_copy(update={"tokens_per_pass": 100}))
    fit_memory(other, images, groups)
    assert (read_json(file)["tokens_per_pass"], read_json(file)["passes"]) == (100, 4)
    assert with_fit(other).gradient_checkpointing == "off"
