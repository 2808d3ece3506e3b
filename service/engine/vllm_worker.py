"""vLLM's CPU worker with what vLLM 0.32 leaves out: exact adapters, and tied heads that follow a reload."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker.cpu_worker import CPUWorker

from service.engine.vllm_lora import GroupedPunicaWrapper


class CpuWorker(CPUWorker):
    """Loads with `GroupedPunicaWrapper`, and reloads all that computes."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        wrapper = f"{GroupedPunicaWrapper.__module__}.{GroupedPunicaWrapper.__qualname__}"
        CpuPlatform.get_punica_wrapper = classmethod(lambda cls: wrapper)
        super().load_model(*args, **kwargs)

    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        """A head tied to the embeddings has no weights of its own in the checkpoint, so a reload passes it over: it
        would go on multiplying by the packed copy that was made of the old embeddings."""
        super().reload_weights(*args, **kwargs)
        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)
