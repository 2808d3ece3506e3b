"""Stochastic rounding of float32 weights to bfloat16.

A bfloat16 has 8 significant bits. Rounded to the nearest, most of a small update is lost: of one of rms 1e-4 on weights
of rms 0.2 seven tenths, of one of 3e-5 nearly all. Rounded up or down at random, by how near the two neighbours are, a
weight keeps its value in the mean (Gupta et al. 2015, "Deep learning with limited numerical precision", section 3), and
so does a matrix product, in which the errors of thousands of weights cancel.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BATCH = 1 << 16
"""Weights rounded at a time, few enough to stay in the processor's cache."""


def rounded(values: Tensor, dtype: torch.dtype, *, seed: int, name: str) -> Tensor:
    """The values in another type: float32 to bfloat16 by stochastic rounding, all others to the nearest.

    Unbiased; exact where a value is representable. Seed and name alone decide each weight's threshold, in whatever
    order tensors come: while a weight moves on, from step to step, its rounding jumps once, not back and forth.

    Args:
        values: of any shape; rounded on the CPU.
        dtype: the type to round to.
        seed: of the round, not negative.
        name: the tensor's, which draws its own random bits.
    """
    if dtype != torch.bfloat16 or values.dtype != torch.float32:
        return values.to(dtype)
    flat = values.detach().cpu().flatten().numpy()
    found = np.empty(flat.size, np.uint16)
    bits = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    for start in range(0, flat.size, _BATCH):
        found[start : start + _BATCH] = _up_or_down(flat[start : start + _BATCH], bits)
    return torch.from_numpy(found.view(np.int16)).view(torch.bfloat16).view(values.shape)


def _up_or_down(values: NDArray[np.float32], bits: np.random.PCG64) -> NDArray[np.uint16]:
    """Adds 16 random bits below the last that a bfloat16 has, and cuts: they carry with the right probability."""
    drawn = bits.random_raw(-(-values.size // 4)).view(np.uint16)[: values.size]
    if not np.isfinite(values).all():  # infinity and NaN have no neighbours
        drawn = np.where(np.isfinite(values), drawn, np.uint16(0))
        values = np.where(np.isnan(values), np.float32(np.nan), values)  # whose set bit survives the cut
    return ((values.view(np.uint32) + drawn) >> np.uint32(16)).astype(np.uint16)
