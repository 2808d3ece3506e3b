"""Float32 arithmetic over weights of another type: what a pass would give without the rounding of its arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

_PRODUCTS = {
    F.linear,
    F.embedding,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.layer_norm,
    F.rms_norm,
    F.scaled_dot_product_attention,
    torch.matmul,
    torch.bmm,
    torch.mm,
    torch.addmm,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
}
"""Operations that want all their tensors of one type. All others promote: a float32 stays one."""


class Float32(TorchFunctionMode):
    """For the block, operations take 16-bit tensors as float32, one weight at a time: no second copy of the model."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = (args, dict(kwargs or {}))
        if function in _PRODUCTS:
            given = tree_map_only(torch.Tensor, _widened, given)
        return function(*given[0], **given[1])


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
