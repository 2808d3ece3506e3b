"""A policy's weights sharded over the processes by FSDP2, and gathered again. All ranks must call these together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from trainer.training.distributed import is_main, world_size


def place(
    network: nn.Module, layers: Sequence[nn.Module], methods: Sequence[str], device: str, dtype: torch.dtype
) -> None:
    """Moves the network to the device. Of many processes each takes its shard of every tensor, layer by layer, so that
    no device ever holds the whole. To compute, layers are gathered one at a time, in `dtype`.

    `methods` are the network's other methods that compute with its weights, as forward does.
    """
    mixed = any(parameter.dtype != dtype for parameter in network.parameters())
    if world_size() == 1 and not (mixed and dist.is_initialized()):
        network.to(device)
        return
    mesh = init_device_mesh(torch.device(device).type, (world_size(),))
    # inputs keep their types: the model itself casts them, and its rotary angles stay float32
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in (*layers, network):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for method in methods:
        register_fsdp_forward_method(network, method)


def gathered_weights(module: nn.Module, *, trained_only: bool) -> dict[str, Tensor]:
    """The module's whole parameters on the CPU, tied ones once, by name; empty on other ranks than 0."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=trained_only)
    state = get_model_state_dict(module, options=options)
    wanted = (name for name, each in module.named_parameters() if each.requires_grad or not trained_only)
    return {name: state[name] for name in wanted if is_main()}


def scatter_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads rank 0's whole tensors into the shards of all ranks; tensors not named stay."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()  # a pass leaves the outermost part whole, and torch then loads whole tensors into shards
    set_model_state_dict(module, weights, options=_from_rank_0(strict=False))


def gathered_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's whole state on the CPU, by the module's names; empty on other ranks than 0."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_optimizer_state_dict(module, optimizer, options=options)


def scatter_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads the result of `gathered_optimizer` on rank 0 into all ranks."""
    set_optimizer_state_dict(module, optimizer, state, options=_from_rank_0(strict=True))


def own_bytes(parameters: Iterable[Tensor]) -> int:
    """The bytes of this process's shards, tied ones once."""
    return sum((each.to_local() if isinstance(each, DTensor) else each).nbytes for each in parameters)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _from_rank_0(*, strict: bool) -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, broadcast_from_rank0=dist.is_initialized(), strict=strict)
