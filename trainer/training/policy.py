"""The trainer's own torch copy of the policy: log-probabilities, gradients, and the files made of its weights.

`--policy lora` trains an adapter on the language model, served beside the version that answers users. `--policy full`
trains all weights, as the paper does; they overwrite those of a rollout engine.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from evoquality.contract import InfoResponse
from service.prompts import Profile
from service.versions.contents import ignored_with_weights
from trainer.files import read_json
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed, sharding
from trainer.training.device_memory import free_bytes
from trainer.training.logprobs import Answers, Logprobs
from trainer.training.network import Pixels, PolicyNetwork, load_model
from trainer.training.rounding import rounded
from trainer.training.self_check import SelfCheck

LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Adapters go on the language model only: vLLM does not serve those of the vision tower faithfully."""


class Policy(ABC):
    """A Qwen2.5-VL under training and the frozen model it began as. Under torchrun each process holds a part of both;
    methods that gather the parts must be called on all ranks, and only rank 0 writes."""

    def __init__(
        self,
        network: PolicyNetwork,
        checkpoint: Path,
        device: str,
        dtype: torch.dtype,
        *,
        recompute: bool,
        seed: int,
        served: str,
    ) -> None:
        if recompute:
            network.recompute_activations()
        network.place(device, dtype)
        self.network = network
        self.device = device
        self.checkpoint = checkpoint
        self._seed = seed
        self._served = _served_dtype(checkpoint, served)

    def trainable(self) -> list[nn.Parameter]:
        """The parameters under training, in a stable order."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def weights(self) -> Iterator[nn.Parameter]:
        """All that is held on the policy's device, the frozen reference included."""
        return self.network.parameters()

    def self_check(self, picture: Image.Image) -> SelfCheck:
        """Chooses how log-probabilities are computed, on a picture and its upper two thirds.

        Raises:
            UnsupportedModel: no way gives the model's own.
        """
        upper = picture.crop((0, 0, picture.width, max(1, 2 * picture.height // 3)))
        return self.network.self_check([picture, upper])

    @abstractmethod
    def with_reference(
        self, pictures: Sequence[Image.Image], answers: Sequence[Answers], *, reference: bool = True
    ) -> tuple[Logprobs, Logprobs | None]:
        """Log-probabilities of K answers to the score prompt over each RGB picture.

        Returns:
            Those under the policy, with gradients, and if `reference` those under the frozen model it began as.
        """

    def hand_over(self, directory: Path) -> None:
        """Writes the files that the engine loads to sample rollouts."""
        self.save_weights(directory)

    @abstractmethod
    def save_weights(self, directory: Path) -> None:
        """Writes all weights, adapters merged, with the names and types of the checkpoint. What was trained keeps its
        value in the mean where it passes through bfloat16, see `rounding`."""

    def load_weights(self, directory: Path) -> None:
        """Replaces all weights by those of a checkpoint, as an engine reads them; adapters are off from then on."""
        ours = {name.replace(".base_layer", ""): (name, each.dtype) for name, each in self.network.named_parameters()}
        found = load_model(directory, self._served).named_parameters(prefix="model") if distributed.is_main() else ()
        weights = {}
        for name, values in found:
            here, dtype = ours[name]
            weights[here] = rounded(values.detach(), dtype, seed=self._seed, name=name)
        sharding.scatter_weights(self.network, weights)

    def save_checkpoint(self, directory: Path) -> None:
        """Writes a complete checkpoint: all files but the weights are copied from the one it came from."""
        self.save_weights(directory)
        if distributed.is_main():
            shutil.copytree(
                self.checkpoint,
                directory,
                ignore=ignored_with_weights,
                copy_function=shutil.copyfile,
                dirs_exist_ok=True,
            )

    def state(self) -> dict[str, Tensor]:
        """The weights under training, whole and on the CPU, by name; empty on other ranks than 0."""
        return sharding.gathered_weights(self.network, trained_only=True)

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Loads the `state` of rank 0, with any number of processes."""
        sharding.scatter_weights(self.network, state)

    def _rounded(self, name: str, values: Tensor) -> Tensor:
        """A trained weight in the type that users' answers are computed with."""
        return rounded(values, self._served, seed=self._seed, name=name)

    def gradient_norm(self, limit: float) -> float:
        """Clips the gradients to the Euclidean norm `limit`. Returns their norm before."""
        return float(sharding.whole(torch.nn.utils.clip_grad_norm_(self.trainable(), limit)))


class LoraPolicy(Policy):
    """A frozen Qwen2.5-VL with a LoRA adapter in float32. With the adapter off it is the reference."""

    def __init__(
        self,
        checkpoint: Path,
        profile: Profile,
        *,
        rank: int,
        seed: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        recompute: bool = False,
        pixels: Pixels | None = None,
        served: str = "float32",
    ) -> None:
        torch.manual_seed(seed)
        self._config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LANGUAGE_LINEAR, bias="none")
        base = load_model(checkpoint, dtype)
        self._peft = self._adapted(base)
        network = PolicyNetwork(base, checkpoint, profile, vision_gradient=False, pixels=pixels)
        super().__init__(network, checkpoint, device, dtype, recompute=recompute, seed=seed, served=served)

    def reference(self) -> AbstractContextManager[None]:
        """Turns the adapter off for the block: the model that the round started from."""
        return self._peft.disable_adapter()

    def with_reference(
        self, pictures: Sequence[Image.Image], answers: Sequence[Answers], *, reference: bool = True
    ) -> tuple[Logprobs, Logprobs | None]:
        prompts = self.network.encode(pictures)
        current = self.network.logprobs(prompts, answers)
        if not reference:
            return current, None
        with torch.no_grad(), self.reference():
            return current, self.network.logprobs(prompts, answers)

    def hand_over(self, directory: Path) -> None:
        """Writes the adapter in the format of PEFT and vLLM."""
        state = sharding.gathered_weights(self._peft, trained_only=True)
        if distributed.is_main():
            self._peft.save_pretrained(directory, state_dict=state)

    def save_weights(self, directory: Path) -> None:
        state = sharding.gathered_weights(self._peft, trained_only=True)
        if distributed.is_main():
            adapted = self._adapted(load_model(self.checkpoint, "auto"))
            set_peft_model_state_dict(adapted, state)
            for name, layer in adapted_layers(adapted.get_base_model()):
                weight = layer.get_base_layer().weight
                merged = weight.to(self._served).float() + layer.get_delta_weight("default")
                weight.data = self._rounded(name, merged.detach()).to(weight.dtype)
            adapted.unload().save_pretrained(directory)

    def load_weights(self, directory: Path) -> None:
        self._peft.base_model.disable_adapter_layers()
        super().load_weights(directory)

    def _adapted(self, base: PreTrainedModel) -> PeftModel:
        return get_peft_model(base, self._config)


class FullPolicy(Policy):
    """A Qwen2.5-VL with float32 weights, and beside it the frozen model it began as, in `dtype`.

    Trains language model and merger; the vision tower only if `train_vision`.
    """

    def __init__(
        self,
        checkpoint: Path,
        profile: Profile,
        *,
        train_vision: bool = False,
        seed: int = 0,
        device: str = "cpu",
        reference_device: str | None = None,
        dtype: torch.dtype = torch.float32,
        recompute: bool = False,
        pixels: Pixels | None = None,
        served: str = "float32",
    ) -> None:
        model = load_model(checkpoint, torch.float32)
        if not train_vision:
            _freeze_tower(model)
        network = PolicyNetwork(model, checkpoint, profile, vision_gradient=True, pixels=pixels)
        super().__init__(network, checkpoint, device, dtype, recompute=recompute, seed=seed, served=served)
        self._reference_is_here = reference_device in (None, device)
        self._load_reference = partial(_frozen, checkpoint, profile, dtype, reference_device or device, pixels)

    def weights(self) -> Iterator[nn.Parameter]:
        here = "_reference" in self.__dict__ and self._reference_is_here
        return chain(super().weights(), self._reference.parameters() if here else ())

    @cached_property
    def _reference(self) -> PolicyNetwork:
        """Loaded on first use: without a KL penalty never."""
        reference = self._load_reference()
        reference.states = self.network.states
        return reference

    def with_reference(
        self, pictures: Sequence[Image.Image], answers: Sequence[Answers], *, reference: bool = True
    ) -> tuple[Logprobs, Logprobs | None]:
        current = self.network(pictures, answers)
        if not reference:
            return current, None
        with torch.no_grad():
            frozen = self._reference(pictures, answers)
        return current, frozen._replace(chosen=frozen.chosen.to(self.device))

    def save_weights(self, directory: Path) -> None:
        state = sharding.gathered_weights(self.network.model, trained_only=False)
        if distributed.is_main():
            dtype = _dtype(self.checkpoint)
            trained = {name for name, each in self.network.model.named_parameters() if each.requires_grad}
            state = {
                name: (self._rounded(name, tensor) if name in trained else tensor).to(dtype)
                for name, tensor in state.items()
            }
            self.network.model.save_pretrained(directory, state_dict=state)


def load_policy(
    checkpoint: Path, profile: Profile, settings: EvolveSettings, seed: int, engine: InfoResponse
) -> Policy:
    """The policy at the beginning of a round. `seed` draws the adapter's first weights and the rounding of weights; the
    policy scales pictures, and rounds what it writes, for `engine`, which samples its rollouts."""
    threads = max(1, len(os.sched_getaffinity(0)) // 2 // distributed.local_world_size())
    torch.set_num_threads(settings.threads or threads)
    pixels = {"min_pixels": engine.min_pixels, "max_pixels": engine.max_pixels}
    made: Callable[..., Policy]
    if settings.policy == "full":
        made = partial(FullPolicy, train_vision=settings.train_vision, reference_device=settings.reference_device)
    else:
        made = partial(LoraPolicy, rank=settings.rank)
    dtype, recompute = getattr(torch, arithmetic(settings, checkpoint)), settings.gradient_checkpointing == "on"
    made = partial(made, seed=seed, dtype=dtype, recompute=recompute)
    return made(checkpoint, profile, device=settings.device, pixels=pixels, served=engine.dtype)


def arithmetic(settings: EvolveSettings, checkpoint: Path) -> str:
    """The settings' `dtype`, `auto` resolved for a checkpoint: float32 where the model fits so, see the setting."""
    if settings.dtype != "auto":
        return settings.dtype
    config = read_json(checkpoint / "config.json")
    halves = "16" in str(config.get("dtype") or config.get("torch_dtype"))  # checkpoints of before transformers 5
    if settings.device.startswith("cuda"):
        return "bfloat16" if halves else "float32"
    stored = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    fits = stored * (2 if halves else 1) < free_bytes(torch.device(settings.device)) / 2
    return "float32" if fits or settings.policy == "full" else "bfloat16"


def _frozen(
    checkpoint: Path, profile: Profile, dtype: torch.dtype, device: str, pixels: Pixels | None
) -> PolicyNetwork:
    model = load_model(checkpoint, dtype).requires_grad_(False)
    network = PolicyNetwork(model, checkpoint, profile, vision_gradient=False, pixels=pixels)
    network.place(device, dtype)
    return network


def _freeze_tower(model: PreTrainedModel) -> None:
    """Freezes the vision tower but for the merger, which leads into the language model."""
    model.model.visual.requires_grad_(False)
    model.model.visual.merger.requires_grad_(True)


def _dtype(checkpoint: Path) -> torch.dtype:
    """The type of the checkpoint's weights."""
    return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).dtype or torch.float32


def _served_dtype(checkpoint: Path, served: str) -> torch.dtype:
    """The coarsest type that weights pass through on their way to an answer, in the checkpoint or in the engine, whose
    own setting is `served`. By "auto" vLLM computes in the checkpoint's type, or in bfloat16 for float32."""
    own = _dtype(checkpoint)
    return torch.bfloat16 if served == "bfloat16" or (served == "auto" and own == torch.float32) else own


def adapted_layers(model: PreTrainedModel) -> Iterator[tuple[str, LoraLayer]]:
    """The layers that have an adapter, by their names in the model without one."""
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer))
