"""vLLM's CPU worker, with two repairs of vLLM 0.32: exact adapters, and tied heads that follow a reload."""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker.cpu_worker import CPUWorker


class CpuWorker(CPUWorker):
    """Loads adapters with `GroupedPunicaWrapper`, and reloads tied heads too."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        wrapper = f"{GroupedPunicaWrapper.__module__}.{GroupedPunicaWrapper.__qualname__}"
        CpuPlatform.get_punica_wrapper = classmethod(lambda cls: wrapper)
        super().load_model(*args, **kwargs)

    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        """Packs tied heads again. The checkpoint has no weights of their own for them, so vLLM's reload skips them and
        they would keep multiplying by the packed copy of the old embeddings.
        """
        super().reload_weights(*args, **kwargs)
        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """LoRA on the CPU: exact for requests without an adapter, and ten times faster than vLLM's own.

    vLLM copies an adapter's matrices once per *token*. It marks a token without an adapter by the index -1, which then
    reads the last slot: while an adapter lies there, users' requests in the same batch get its weights. Here the tokens
    of each adapter are multiplied together, and the others are left untouched.
    """

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(*args, **kwargs)
        slots = self.token_lora_indices
        self._rows = {slot: (slots == slot).nonzero()[:, 0] for slot in slots.unique().tolist() if slot >= 0}

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        for slot, rows in self._rows.items():
            inputs, left = x[rows], 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                y[rows, left : left + width] += scale * (inputs @ a[slot, 0].T) @ b[slot, 0].T
                left += width
