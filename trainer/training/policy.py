"""The trainer's own torch copy of the policy: log-probabilities, gradients, the adapter under training."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache

from service.contract import Task
from service.prompts import Profile, chat_messages
from service.versions.store import MANIFEST

_WEIGHTS = "model"
"""How the names of weight files and of their index begin: model.safetensors, model-00001-of-00005.safetensors."""
LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Adapters go on the language model only: vLLM does not serve those of the vision tower faithfully."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One encoded prompt: what the language model is fed before the answers."""

    token_ids: list[int]
    embeddings: Tensor
    """(1, P, width), visual tokens in place."""
    positions: Tensor
    """(3, 1, P) rotary positions."""


class Policy:
    """A Qwen2.5-VL with a LoRA adapter. With the adapter off it is the frozen reference."""

    def __init__(self, checkpoint: Path, profile: Profile, *, rank: int, seed: int, device: str = "cpu") -> None:
        torch.manual_seed(seed)
        base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto").to(device)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LANGUAGE_LINEAR, bias="none")
        self._checkpoint = checkpoint
        self._peft: PeftModel = get_peft_model(base, config)
        self._model = base.model
        self._head = base.lm_head
        self._processor = AutoProcessor.from_pretrained(checkpoint)
        self._profile = profile
        self.device = device

    def trainable(self) -> list[Tensor]:
        """The adapter's tensors, in a stable order."""
        return [parameter for parameter in self._peft.parameters() if parameter.requires_grad]

    def reference(self) -> AbstractContextManager[None]:
        """Inside this context the adapter is off: the model the round started from."""
        return self._peft.disable_adapter()

    @torch.no_grad()
    def encode(self, task: Task, images: Sequence[Image.Image]) -> Prompt:
        """Runs the frozen vision tower once and lays the prompt out."""
        text = self._processor.apply_chat_template(
            chat_messages(task, self._profile), add_generation_prompt=True, tokenize=False
        )
        encoded = self._processor(text=[text], images=list(images), return_tensors="pt").to(self.device)
        ids, grids = encoded["input_ids"], encoded["image_grid_thw"]
        positions, _ = self._model.get_rope_index(ids, encoded["mm_token_type_ids"], grids)
        visual = torch.cat(self._model.get_image_features(encoded["pixel_values"], grids).pooler_output)
        embeddings = self._model.get_input_embeddings()(ids)
        places = (ids == self._model.config.image_token_id)[..., None]
        embeddings = embeddings.masked_scatter(places, visual.to(embeddings.dtype))
        return Prompt(ids[0].tolist(), embeddings, positions)

    def logprobs(
        self, prompt: Prompt, answers: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Natural log-probabilities of K sampled answers, as token ids, after one prompt.

        The prompt is computed once; its keys and values are repeated for the K answers, which is exact and keeps
        the gradient.

        Returns:
            (K, T) float32 log-probabilities, zero where an answer has ended, and the (K, T) mask of answer tokens.
        """
        tokens, mask = self._padded(answers)
        cache = DynamicCache()
        first = self._language(prompt.embeddings, prompt.positions, cache)[:, -1:]
        hidden = first.expand(len(tokens), -1, -1)
        if tokens.shape[1] > 1:
            cache.batch_repeat_interleave(len(tokens))
            steps = torch.arange(tokens.shape[1] - 1, device=self.device) + prompt.positions.max() + 1
            suffix = self._model.get_input_embeddings()(tokens[:, :-1])
            rest = self._language(suffix, steps.expand(3, len(tokens), -1), cache)
            hidden = torch.cat([hidden, rest], 1)
        logits = self._head(hidden).float() / temperature
        chosen = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        return chosen * mask, mask

    def save_adapter(self, directory: Path) -> None:
        """Writes the adapter as PEFT and vLLM read it."""
        self._peft.save_pretrained(directory)

    def state(self) -> dict[str, Tensor]:
        """The adapter's weights by name."""
        return get_peft_model_state_dict(self._peft)

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave."""
        set_peft_model_state_dict(self._peft, state)

    def save_checkpoint(self, directory: Path) -> None:
        """Merges the adapter into the weights and writes a checkpoint that stands alone. Ends this policy's use.

        Everything but the weights is copied from the checkpoint it came from.
        """
        self._peft.merge_and_unload().save_pretrained(directory)
        for file in self._checkpoint.iterdir():
            if not file.name.startswith(_WEIGHTS) and file.name != MANIFEST:
                shutil.copy(file, directory)

    def _language(self, embeddings: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        output = self._model.language_model(
            inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return output.last_hidden_state

    def _padded(self, answers: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor(answer, device=self.device) for answer in answers]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        ones = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return tokens, ones.float()
