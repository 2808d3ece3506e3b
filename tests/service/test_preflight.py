"""The checks of a candidate before an engine may load it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from service.errors import AdapterRefused, VersionError
from service.versions.preflight import Tensor, check_adapter, check_weights, form, is_finite
from tests.service.conftest import adapter, checkpoint

Tensors = dict[str, NDArray[np.float32]]


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "reference", 1)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "candidate", 2)


def test_other_values_in_the_same_tensors_pass(candidate: Path, reference: Path):
    check_weights(candidate, form(reference))


def _remove(tensors: Tensors) -> None:
    del tensors["b.bias"]


def _add(tensors: Tensors) -> None:
    tensors["c.weight"] = np.zeros(2, np.float32)


def _reshape(tensors: Tensors) -> None:
    tensors["a.weight"] = tensors["a.weight"].reshape(3, 4)


def _cast(tensors: Tensors) -> None:
    tensors["a.weight"] = tensors["a.weight"].astype(np.float16)


def _nan(tensors: Tensors) -> None:
    tensors["a.weight"][3, 2] = np.nan


def _infinity(tensors: Tensors) -> None:
    tensors["a.weight"][0, 0] = -np.inf


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_remove, "missing_tensor"),
        (_add, "extra_tensor"),
        (_reshape, "wrong_shape"),
        (_cast, "wrong_dtype"),
        (_nan, "not_finite"),
        (_infinity, "not_finite"),
    ],
)
def test_damaged_tensors_are_refused(candidate: Path, reference: Path, damage: Callable[[Tensors], None], reason: str):
    tensors = load_file(candidate / "model.safetensors")
    damage(tensors)
    save_file(tensors, candidate / "model.safetensors")
    with pytest.raises(VersionError) as refusal:
        check_weights(candidate, form(reference))
    assert refusal.value.reason == reason


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 40, b"short"])
def test_what_is_no_safetensors_file_is_refused(candidate: Path, reference: Path, content: bytes):
    (candidate / "model.safetensors").write_bytes(content)
    with pytest.raises(VersionError, match="unreadable_weights"):
        check_weights(candidate, form(reference))


def test_a_cut_file_is_refused(candidate: Path, reference: Path):
    data = (candidate / "model.safetensors").read_bytes()
    (candidate / "model.safetensors").write_bytes(data[:-4])
    with pytest.raises(VersionError, match="unreadable_weights"):
        check_weights(candidate, form(reference))


def test_a_missing_directory_is_refused(tmp_path: Path, reference: Path):
    with pytest.raises(VersionError, match="missing_directory"):
        check_weights(tmp_path / "nowhere", form(reference))


def test_another_configuration_cannot_be_swapped_in(candidate: Path, reference: Path):
    (candidate / "config.json").write_text(json.dumps({"model_type": "other"}))
    with pytest.raises(VersionError, match="different_files"):
        check_weights(candidate, form(reference))
    (candidate / "config.json").unlink()
    with pytest.raises(VersionError, match="different_files"):
        check_weights(candidate, form(reference))


def test_an_index_that_leaves_tensors_out_is_refused(candidate: Path, reference: Path):
    index = candidate / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "model.safetensors"}}))
    with pytest.raises(VersionError, match="bad_index"):
        check_weights(candidate, form(reference))
    whole = {"a.weight": "model.safetensors", "b.bias": "model.safetensors"}
    index.write_text(json.dumps({"weight_map": whole}))
    check_weights(candidate, form(reference))


@pytest.mark.parametrize(
    ("dtype", "fine", "bad"),
    [
        ("BF16", [0x3F80, 0x7F7F, 0x0001, 0xBF80], [0x7F80, 0x7FC0, 0xFF80]),
        ("F16", [0x3C00, 0x7BFF, 0x8001], [0x7C00, 0x7E00, 0xFC00]),
    ],
)
def test_half_precision_is_told_finite_by_its_bits(tmp_path: Path, dtype: str, fine: list[int], bad: list[int]):
    file = tmp_path / "bits"
    for values, expected in [(fine, True), *(([*fine, value], False) for value in bad)]:
        file.write_bytes(np.array(values, "<u2").tobytes())
        assert is_finite(Tensor(dtype, (len(values),), file, 0, 2 * len(values))) is expected


def test_a_lora_adapter_passes_and_a_rank_too_high_does_not(tmp_path: Path):
    check_adapter(adapter(tmp_path / "fine", rank=2), max_rank=2)
    with pytest.raises(AdapterRefused, match="rank"):
        check_adapter(adapter(tmp_path / "high", rank=3), max_rank=2)


def test_adapters_the_engine_would_choke_on_or_ignore_are_refused(tmp_path: Path):
    prefix = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    good = load_file(adapter(tmp_path / "adapter") / "adapter_model.safetensors")
    first = good[f"{prefix}.lora_A.weight"]
    for damage in (
        {"visual.blocks.0.attn.qkv.lora_A.weight": first},
        {"x": first},
        {f"{prefix}.lora_A.weight": np.full_like(first, np.nan)},
        {f"{prefix}.lora_A.weight": first[:1]},
        {f"{prefix.replace('q_', 'k_')}.lora_A.weight": first},
    ):
        save_file({**good, **damage}, tmp_path / "adapter" / "adapter_model.safetensors")
        with pytest.raises(AdapterRefused):
            check_adapter(tmp_path / "adapter", max_rank=8)
    with pytest.raises(AdapterRefused):
        check_adapter(tmp_path, max_rank=8)
