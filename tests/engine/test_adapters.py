"""Adapters on the real engine: faithful, counted, and never able to kill it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evoquality import ServiceError
from evoquality.contract import ScoreOptions
from tests.engine.checkpoints import Tensors, adapter, merged
from tests.engine.conftest import add
from tests.engine.pictures import ask_greedily, logprobs, tokens
from tests.engine.running import Running

pytestmark = pytest.mark.engine


def _make(service: Running, version: str, name: str, seed: int = 5) -> Path:
    return adapter(service.store.path(version), service.store.root / "adapters" / name, seed)


def _code(refusal: pytest.ExceptionInfo[ServiceError]) -> tuple[int, str]:
    return refusal.value.problem.status, refusal.value.problem.code


def test_an_adapter_answers_as_its_merged_checkpoint(service: Running, first: str, images: list[bytes], tmp_path: Path):
    path = _make(service, first, "merged")
    version = add(service.store, merged(service.store.path(first), path, tmp_path / "merged"), first)
    service.operators.load_adapter("merged")
    base, adapted = ask_greedily(service, images), ask_greedily(service, images, "merged")
    service.operators.promote(version)
    alone = ask_greedily(service, images)
    assert tokens(adapted) == tokens(alone) != tokens(base)
    assert logprobs(adapted) == pytest.approx(logprobs(alone), abs=1e-4)


def test_adapters_and_users_answered_in_one_batch_do_not_mix(service: Running, first: str, images: list[bytes]):
    names = ("left", "right")
    for seed, name in enumerate(names):
        adapter(service.store.path(first), service.store.root / "adapters" / name, seed, scale=0.3)
        service.operators.load_adapter(name)
    asked = (None, *names, None)
    alone = {name: tokens(ask_greedily(service, images, name)) for name in (None, *names)}
    with ThreadPoolExecutor(len(asked)) as pool:
        mixed = list(pool.map(lambda name: tokens(ask_greedily(service, images, name)), asked * 4))
    assert len({str(answers) for answers in alone.values()}) == 3
    assert mixed == [alone[name] for name in asked * 4]
    for name in names:
        service.operators.unload_adapter(name)


def test_an_unknown_adapter_never_reaches_the_engine(service: Running, images: list[bytes]):
    with pytest.raises(ServiceError) as refusal:
        ask_greedily(service, images[:1], "nobody")
    assert _code(refusal) == (404, "unknown_adapter")
    assert service.public.score(images[0], ScoreOptions(samples=8)).samples == 8


def test_an_adapter_named_after_its_removal_is_unknown_and_the_engine_lives(
    service: Running, first: str, images: list[bytes]
):
    path = _make(service, first, "removed")
    service.operators.load_adapter("removed")
    ask_greedily(service, images[:2], "removed")
    service.operators.unload_adapter("removed")
    assert not path.exists()
    with pytest.raises(ServiceError) as refusal:
        ask_greedily(service, images[:2], "removed")
    assert _code(refusal) == (404, "unknown_adapter")
    assert service.public.score(images[0], ScoreOptions(samples=8)).samples == 8


def test_a_name_is_never_used_again(service: Running, first: str):
    _make(service, first, "once")
    first_id = service.operators.load_adapter("once").id
    service.operators.unload_adapter("once")
    _make(service, first, "once", seed=6)
    with pytest.raises(ServiceError) as refusal:
        service.operators.load_adapter("once")
    assert _code(refusal) == (409, "adapter_name_used")
    _make(service, first, "twice")
    assert service.operators.load_adapter("twice").id > first_id
    service.operators.unload_adapter("twice")


def test_a_swap_forgets_adapters_of_the_old_version(service: Running, first: str, second: str, images: list[bytes]):
    _make(service, first, "stale")
    service.operators.load_adapter("stale")
    service.operators.promote(second)
    with pytest.raises(ServiceError) as refusal:
        ask_greedily(service, images[:1], "stale")
    assert _code(refusal) == (404, "unknown_adapter")


def test_an_adapter_with_nan_is_refused(service: Running, first: str, images: list[bytes]):
    file = _make(service, first, "nan") / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, file)
    with pytest.raises(ServiceError) as refusal:
        service.operators.load_adapter("nan")
    assert _code(refusal) == (422, "adapter_refused")


def test_an_adapter_of_another_model_is_refused_and_the_engine_lives(service: Running, first: str, images: list[bytes]):
    file = _make(service, first, "wide") / "adapter_model.safetensors"
    wider = {name: np.tile(tensor, (1, 2) if "lora_A" in name else (2, 1)) for name, tensor in load_file(file).items()}
    save_file(wider, file)
    with pytest.raises(ServiceError) as refusal:
        service.operators.load_adapter("wide")
    assert _code(refusal) == (422, "adapter_refused")
    assert service.public.score(images[0], ScoreOptions(samples=8)).samples == 8


def _config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _file(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _tensors(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)

    return rewrite


ODD: dict[str, Callable[[Path], object]] = {
    "no-config": lambda folder: (folder / "adapter_config.json").unlink(),
    "no-weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "config-no-json": _file("adapter_config.json", b"{"),
    "config-a-list": _file("adapter_config.json", b"[]"),
    "config-not-utf8": _file("adapter_config.json", b"\xff\xfe"),
    "weights-empty": _file("adapter_model.safetensors", b""),
    "weights-cut": _file("adapter_model.safetensors", b"\x10\0\0\0\0\0\0\0{}"),
    "header-huge": _file("adapter_model.safetensors", b"\xff" * 8),
    "rank-0": _config(r=0),
    "rank-negative": _config(r=-4),
    "rank-huge": _config(r=2**31),
    "rank-a-text": _config(r="4"),
    "alpha-nothing": _config(lora_alpha=None),
    "alpha-a-text": _config(lora_alpha="x"),
    "another-method": _config(peft_type="IA3"),
    "targets-nobody": _config(target_modules=["nobody"]),
    "targets-a-pattern": _config(target_modules="("),
    "with-bias": _config(bias="all"),
    "dora": _config(use_dora=True),
    "no-tensors": _tensors(lambda tensors: {}),
    "half-of-them": _tensors(lambda tensors: dict(list(tensors.items())[::2])),
    "other-names": _tensors(lambda tensors: {f"x.{name}": tensor for name, tensor in tensors.items()}),
    "other-shapes": _tensors(lambda tensors: {name: tensor.ravel() for name, tensor in tensors.items()}),
    "integers": _tensors(lambda tensors: {name: tensor.astype(np.int32) for name, tensor in tensors.items()}),
    "infinite": _tensors(lambda tensors: {name: tensor * np.inf for name, tensor in tensors.items()}),
}
"""What may be wrong with an adapter. Some of it is harmless and is loaded."""


def test_odd_adapters_are_loaded_or_refused_and_the_engine_lives(service: Running, first: str, images: list[bytes]):
    before = tokens(ask_greedily(service, images[:4]))
    for name, make_odd in ODD.items():
        make_odd(_make(service, first, f"odd-{name}"))
        try:
            service.operators.load_adapter(f"odd-{name}")
            ask_greedily(service, images[:2], f"odd-{name}")
            service.operators.unload_adapter(f"odd-{name}")
        except ServiceError as refusal:
            assert refusal.problem.status in (404, 422), (name, refusal)
    assert tokens(ask_greedily(service, images[:4])) == before
