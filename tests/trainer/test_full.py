"""All weights under training, on random checkpoints: what is trained, what is written, what the reference is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from tests.trainer.vision_models import PLAIN, SHAPES, picture, plain_logprobs
from trainer.training.policy import FullPolicy, LoraPolicy, Policy

PICTURES = [picture(0, 84, 112), picture(1, 112, 56)]
ANSWERS = [[[300, 301, 302, 2], [310, 2]], [[7], [8, 2]]]


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHAPES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def policy(checkpoint: Path) -> FullPolicy:
    """After a step of some size."""
    made = FullPolicy(checkpoint, PLAIN)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in made.trainable():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return made


def of_first(model: torch.nn.Module, checkpoint: Path) -> Tensor:
    """The first picture's first answer, the plain way."""
    return plain_logprobs(model, checkpoint, PICTURES[0], ANSWERS[0][0])


def test_the_reference_stays_the_checkpoint_while_the_policy_moves(policy: FullPolicy, checkpoint: Path) -> None:
    current, reference = policy.with_reference(PICTURES, ANSWERS)
    base = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=False)
    torch.testing.assert_close(reference.chosen[0, 0], of_first(base, checkpoint), atol=1e-5, rtol=0)
    torch.testing.assert_close(current.chosen[0, 0], of_first(policy.network.model, checkpoint), atol=1e-5, rtol=0)
    assert (current.chosen - reference.chosen).abs().max() > 1e-2


def test_gradients_reach_all_weights_but_the_vision_towers(policy: FullPolicy) -> None:
    policy.with_reference(PICTURES, ANSWERS)[0].chosen.sum().backward()
    for name, parameter in policy.network.named_parameters():
        in_the_tower = "visual." in name and "merger" not in name
        assert in_the_tower == (parameter.grad is None), name


def test_the_vision_tower_is_trained_if_asked_for(checkpoint: Path) -> None:
    made = FullPolicy(checkpoint, PLAIN, train_vision=True)
    made.with_reference(PICTURES, ANSWERS)[0].chosen.sum().backward()
    assert all(parameter.grad is not None for parameter in made.network.parameters())


def test_what_is_handed_over_could_replace_the_checkpoints_weights(
    policy: FullPolicy, checkpoint: Path, tmp_path: Path
) -> None:
    from service.versions.preflight import check_tensors, form

    policy.hand_over(tmp_path / "weights")
    check_tensors(tmp_path / "weights", form(checkpoint))
    policy.save_checkpoint(tmp_path / "saved")
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved", trust_remote_code=False)
    current, _ = policy.with_reference(PICTURES, ANSWERS, reference=False)
    torch.testing.assert_close(current.chosen[0, 0], of_first(saved, tmp_path / "saved"), atol=1e-5, rtol=0)


def test_weights_are_written_in_the_checkpoints_own_type(checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16, trust_remote_code=False)
    half = tmp_path / "half"
    half.mkdir()
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors":
            (half / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(half)
    for kind, made in {"full": FullPolicy(half, PLAIN), "lora": LoraPolicy(half, PLAIN, rank=4, seed=0)}.items():
        assert {parameter.dtype for parameter in made.trainable()} == {torch.float32}
        made.save_weights(tmp_path / kind)
        tensors = load_file(tmp_path / kind / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_activations_computed_again_change_nothing(checkpoint: Path, kind: str) -> None:
    kept, again = (make(kind, checkpoint, recompute=recompute) for recompute in (False, True))
    calls = []
    for policy in (kept, again):
        layer = policy.network.model.model.language_model.layers[0].mlp
        layer.register_forward_pre_hook(lambda module, _: calls.append(module))
    found, gradients = zip(*(chosen_and_gradients(policy) for policy in (kept, again)), strict=True)
    assert torch.equal(found[0], found[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)
    modules = [policy.network.model.model.language_model.layers[0].mlp for policy in (kept, again)]
    assert calls.count(modules[1]) == calls.count(modules[0]) + 1


def make(kind: str, checkpoint: Path, *, recompute: bool) -> Policy:
    if kind == "full":
        return FullPolicy(checkpoint, PLAIN, recompute=recompute)
    return LoraPolicy(checkpoint, PLAIN, rank=8, seed=0, recompute=recompute)


def chosen_and_gradients(policy: Policy) -> tuple[Tensor, list[Tensor]]:
    found, _ = policy.with_reference(PICTURES, ANSWERS, reference=False)
    return found.chosen.detach(), list(torch.autograd.grad(found.chosen.sum(), policy.trainable()))
