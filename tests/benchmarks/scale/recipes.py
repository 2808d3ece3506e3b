"""The memory and the context of every command for Qwen2.5-VL 3B and 7B in the READMEs, k8s/ and docker/.

A command of a README says in its comment for which model and GPUs it is ("# 7B on a GPU of 48 GB"); the head of a
kustomization or compose file says it for what the file holds. Settings are read as the programs read them, with the
defaults of an engine on a GPU. `measure` also runs a training pass of a model with layers as wide as 7B's, but two of
them, and compares its memory with the formula's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic_settings import CliApp
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor
from typer.main import get_command

from service.cli import app
from service.configuration.settings import Settings
from service.engine.memory import Shape, serving
from service.engine.pixels import Asked, PixelLimits, check_fits, fitting
from service.prompts import PICTURES, PROFILES, Profile, max_tokens, question
from tests.benchmarks.checkpoint.architecture import build_config, build_processor, save_checkpoint
from tests.benchmarks.sizes import GIB, GPUS, shape
from tests.deployment.worlds import WORLDS, Pod, world
from trainer.pricing.memory import least_bytes, pass_bytes
from trainer.settings.evolve import EvolveSettings
from trainer.training.device_memory import peak_bytes
from trainer.training.policy import LoraPolicy

READMES = tuple(map(Path, ("README.md", "trainer/README.md", "service/README.md")))
QWEN = PixelLimits(56 * 56, 12_845_056, 28)
"""Of Qwen2.5-VL's preprocessor_config.json."""
ASKED_AT_ONCE = 16
"""Questions as long as the context that an engine should have room for; a full one makes others wait."""
USABLE = 0.9
"""Of a GPU's memory, for the trainer; the rest is CUDA's and the allocator's."""
_SAID = re.compile(r"\b(3B|7B) on (?:a|(\d+)|two) GPUs? of (\d+) GB")
_COMMAND = re.compile(r"(?:evoquality serve|evoquality-trainer evolve|\S+ -m trainer\.torchrun)\s")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A command with its program's settings, the model and the GPUs that it is said to be for."""

    name: str
    model: str
    gpu_gib: float
    gpus: int
    """Over which a trainer's weights are spread."""
    settings: Settings | EvolveSettings

    @property
    def computed_gib(self) -> float:
        """What it takes of each GPU, with what CUDA and the allocator keep."""
        dimensions = shape(self.model)
        if isinstance(self.settings, Settings):
            return serving(dimensions, self.settings).needed(self.settings, ASKED_AT_ONCE) / GIB
        return least_bytes(dimensions, self.settings, self.gpus) / USABLE / GIB

    def check_context(self) -> int:
        """The pixels of the largest picture in every profile. Raises UserError if a setting does not fit."""
        assert isinstance(self.settings, Settings)
        wanted = QWEN if self.settings.max_pixels is None else PixelLimits(56 * 56, self.settings.max_pixels, 28)
        limits = []
        for profile in PROFILES.values():
            asked = [
                Asked(n, question_tokens(profile), max_tokens(task, profile, self.settings.max_answer_tokens))
                for task, n in PICTURES.items()
            ]
            if self.settings.max_pixels:
                check_fits(wanted, asked, self.settings.max_model_len)
            limits.append(fitting(wanted, asked, self.settings.max_model_len).largest)
        return min(limits)


def question_tokens(profile: Profile) -> int:
    """Of the longest question's text with the chat's own tokens, at most: a token of Qwen's has four letters."""
    return max(len(question(task, profile)) for task in PICTURES) // 3 + 40


def recipes(manifests: Path) -> list[Recipe]:
    """Every one. `manifests` is a copy of k8s/ with an operators' key."""
    return [*_of_readmes(), *_of_compose(), *_of_clusters(manifests)]


def measure() -> dict[str, Any]:
    """`recipes`, and `training_pass`: the memory of a pass with two layers as wide as 7B's, measured and computed."""
    with tempfile.TemporaryDirectory() as folder:
        found = recipes(_with_key(Path(folder)))
    checked = {}
    for recompute in (False, True):
        text = {"heads": 28, "kv_heads": 4, "layers": 2}
        small, tokens, peak = measured_pass(3584, 18944, **text, side=448, recompute=recompute)
        computed = pass_bytes(small, tokens, recompute=recompute, device="cpu")
        checked["computed again" if recompute else "kept"] = {
            "tokens": tokens,
            "measured_gib": peak / GIB,
            "computed_gib": computed / GIB,
        }
    rows = [{"name": one.name, "gpu_gib": one.gpu_gib, "computed_gib": one.computed_gib} for one in found]
    return {"recipes": rows, "training_pass": checked}


def measured_pass(
    hidden: int, intermediate: int, *, heads: int, kv_heads: int, layers: int, side: int, recompute: bool
) -> tuple[Shape, int, int]:
    """A training pass of a random model in bfloat16 on the CPU, with an adapter: its shape, tokens and peak in bytes.

    One square picture of `side` pixels and four answers of six tokens.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = _random_checkpoint(Path(folder), hidden, intermediate, heads, kv_heads, layers)
        policy = LoraPolicy(Path(folder), PROFILES["plain"], rank=32, seed=0, dtype=torch.bfloat16, recompute=recompute)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    answers = [[[300 + place] * 6 for place in range(4)]]

    def work() -> None:
        current, _ = policy.with_reference([picture], answers, reference=False)
        torch.autograd.backward(current.chosen.sum())

    tokens, threads = len(policy.network.prompt_ids(picture)) + 4 * 6, torch.get_num_threads()
    torch.set_num_threads(1)  # more would wait for each other
    try:
        work()  # the gradients are there from now on
        return Shape.of(config), tokens, peak_bytes(work, torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)


def _random_checkpoint(
    folder: Path, hidden: int, intermediate: int, heads: int, kv_heads: int, layers: int
) -> dict[str, Any]:
    processor = build_processor()
    processor.image_processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=12_845_056)
    config = build_config(processor.tokenizer)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = hidden, intermediate, layers
    text.num_attention_heads, text.num_key_value_heads = heads, kv_heads
    text.layer_types, text.max_position_embeddings = ["full_attention"] * layers, 4096
    half = hidden // heads // 2
    text.rope_parameters = {
        **text.rope_parameters,
        "mrope_section": [half // 4, half // 2, half - half // 4 - half // 2],
    }
    vision.depth, vision.fullatt_block_indexes, vision.out_hidden_size = 1, [0], hidden
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    save_checkpoint(model, processor, folder)
    return config.to_dict()


def _of_readmes() -> Iterator[Recipe]:
    for file in READMES:
        for command, comment in documented(file.read_text()):
            said = _SAID.search(comment)
            if said is None:
                raise ValueError(f"{file}: `{command}` does not say for which model and GPU it is")
            words, given = _without_variables(shlex.split(command))
            name = f"{file}: {' '.join(words[:6])}"
            if words[:2] == ["evoquality", "serve"]:
                yield _recipe(name, said, served(words[2:], given))
            else:
                yield _recipe(name, said, evolved(words[words.index("evolve") + 1 :], given))


def documented(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a README that take a GPU, and their comments."""
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n *", "", block).splitlines():
            command, _, comment = line.partition("#")
            if _COMMAND.search(command) and not _is_embedded(command):
                yield command.strip(), comment


def _is_embedded(command: str) -> bool:
    """True if the command is one of the embedded model on a CPU."""
    return "serve" not in command and "cuda" not in command


def _of_compose() -> Iterator[Recipe]:
    file = Path("docker/compose.gpu.yaml")
    said, services = _SAID.search(file.read_text()), yaml.safe_load(file.read_text())["services"]
    yield _recipe(f"{file}: service", said, served([], services["service"]["environment"]))
    yield _recipe(f"{file}: trainer", said, evolved([], services["trainer"]["environment"]))


def _of_clusters(manifests: Path) -> Iterator[Recipe]:
    for name in WORLDS:
        cluster = world(manifests, name)
        with_gpus = [pod for pod in cluster.pods() if "nvidia.com/gpu" in pod.container["resources"]["limits"]]
        overlay = "overlays/gpu-7b" if name == "gpu-7b" else "base"
        said = _SAID.search((manifests / overlay / "kustomization.yaml").read_text())
        for pod in with_gpus:
            environment = {key: text for key, text in cluster.environment(pod).items() if text != "of-the-cluster"}
            made = evolved([], environment) if pod.component == "trainer" else served([], environment)
            yield _recipe(f"k8s {name}: {pod.name}", said, made, _model(cluster.selected(_IMPORT)))


_IMPORT = {"app.kubernetes.io/component": "import"}


def _model(imports: Sequence[Pod]) -> str:
    (pod,) = imports
    return str(re.search(r"Qwen2\.5-VL-(\w+)-Instruct", " ".join(pod.container["args"]))[1])  # type: ignore[index]


def _recipe(name: str, said: re.Match[str] | None, settings: Settings | EvolveSettings, model: str = "") -> Recipe:
    assert said, f"{name} does not say for which model and GPU it is"
    assert model in ("", said[1]), f"{name} is said to be for {said[1]}, and imports {model}"
    return Recipe(name, said[1], GPUS[f"{said[3]} GB"], int(said[2] or 1), settings)


def served(words: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings of `evoquality serve` with these flags and variables, on a machine with a GPU."""
    with _on_gpu(environment):
        given = get_command(app).commands["serve"].make_context("serve", list(words)).params  # type: ignore[attr-defined]
        return Settings(**{name: value for name, value in given.items() if value is not None})


def evolved(words: Sequence[str], environment: Mapping[str, str]) -> EvolveSettings:
    """The settings of `evoquality-trainer evolve` with these flags and variables."""
    flags = [*words] if "--run" in words else [*words, "--run", "runs/any"]
    with _on_gpu(environment), tempfile.TemporaryDirectory() as pool:
        if "--pool" in flags:
            flags[flags.index("--pool") + 1] = pool
        with patch.dict(os.environ, {"EVOQUALITY_TRAINER_POOL": pool}):
            return CliApp.run(EvolveSettings, flags, cli_exit_on_error=False)


@contextmanager
def _on_gpu(environment: Mapping[str, str]) -> Iterator[None]:
    own = {name: str(text) for name, text in environment.items() if name.startswith("EVOQUALITY_")}
    with patch("service.configuration.settings.has_gpu_engine", return_value=True), patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("EVOQUALITY_")]:
            del os.environ[name]
        os.environ.update(own)
        yield


def _without_variables(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """A command's words, and the variables that are set before it."""
    given = [word for word in words if re.match(r"[A-Z_]+=", word)]
    return [word for word in words if word not in given], dict(word.split("=", 1) for word in given)


def _with_key(folder: Path) -> Path:
    """A copy of k8s/ with the key that every user makes for himself, and of docker/, which it reads."""
    for name in ("k8s", "docker"):
        shutil.copytree(name, folder / name)
    (folder / "k8s/base/operator.key").write_text("a key of its own\n")
    return folder / "k8s"
