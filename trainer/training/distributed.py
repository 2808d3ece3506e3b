"""Many processes, one policy: torchrun's processes share its weights by FSDP2, and follow what rank 0 does.

Rank 0 alone runs the round: it talks to the service and writes files. What all have to do together (an update, a
gathering of weights) is a method decorated `together` of an object that every process built: rank 0's call is told to
the others, which wait for it in `follow`. Without torchrun all of this does nothing.
"""

from __future__ import annotations

import gc
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from trainer import termination
from trainer.termination import held

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_PATIENCE = timedelta(days=30)
"""How long the others wait for rank 0, which votes for hours. A process that dies ends all: torchrun sees to it."""
_told_to_end = False
"""Whether SIGTERM came to this process, which is not rank 0."""


@contextmanager
def joined(device: str, dtype: str) -> Iterator[None]:
    """Joins torchrun's processes for the block. A process alone needs a group of its own for bfloat16, which FSDP
    computes in while the weights under training stay float32."""
    if "WORLD_SIZE" not in os.environ and dtype == "float32":
        yield
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device)
    alone = {} if "WORLD_SIZE" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    backends = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backends, timeout=_PATIENCE, **alone)
    try:
        yield
        dist.barrier()  # who leaves first must not be waited for
    finally:
        gc.collect()  # spread weights hold on to the group
        dist.destroy_process_group()


def rank() -> int:
    """This process among `processes()`."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many processes share the policy."""
    return dist.get_world_size() if dist.is_initialized() else 1


def neighbours() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def leads() -> bool:
    """Whether this process runs the round and writes files."""
    return rank() == 0


def together(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Makes rank 0's calls of a method happen on all ranks, on the objects that `built` made there."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if processes() == 1:
            return method(self, *args, **kwargs)
        with held():  # the others cannot be left in mid-call
            if leads():
                _tell((method.__name__, args, kwargs))
            found = method(self, *args, **kwargs)
            if largest(float(_told_to_end)) and leads() and not termination.came():
                signal.raise_signal(signal.SIGTERM)
            return found

    return call


@contextmanager
def built(kind: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> Iterator[S]:
    """Rank 0 builds `kind(*args)`, and the others one each; for the block they repeat its calls of `together` methods.

    Where the block fails the others are told nothing: they end with rank 0, which may have left them in mid-call.
    """
    _tell((kind, args, kwargs))
    yield kind(*args, **kwargs)
    _tell(None)


def follow() -> None:
    """What the other ranks do until the work of `led` is done. Raises ConnectionError if rank 0 ends without it.

    SIGTERM is for rank 0, which needs the others to save what is under way: it is told once a call has ended.
    """
    signal.signal(signal.SIGTERM, _be_told_to_end)
    while order := _hear():
        kind, args, kwargs = order
        target = kind(*args, **kwargs)
        while call := _hear():
            name, arguments, options = call
            getattr(target, name)(*arguments, **options)


def _be_told_to_end(*_: object) -> None:
    global _told_to_end
    _told_to_end = True


def led(device: str, dtype: str, work: Callable[[], R]) -> R | None:
    """What `work` returns on rank 0; None on the others, which take part in its training.

    Raises:
        ConnectionError: on other ranks than 0: that process ended.
    """
    with joined(device, dtype):
        if not leads():
            follow()
            return None
        found = work()
        _tell(None)
        return found


def shares(rows: NDArray[np.intp], size: int) -> Iterator[tuple[NDArray[np.intp], bool]]:
    """This process's part of the rows, at most `size` at a time, and whether they count.

    All processes get the same number of parts, since they gather weights together: where others have more rows, one
    is taken again that must count for nothing.
    """
    mine, longest = rows[rank() :: processes()], math.ceil(len(rows) / processes())
    for start in range(0, longest, size):
        part = mine[start : start + size]
        yield (part, True) if len(part) else (rows[:1], False)


def largest(value: float) -> float:
    """The largest of the processes' values."""
    if processes() == 1:
        return value
    box = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return float(box)


def summed(values: dict[str, float]) -> dict[str, float]:
    """Each value, added up over all ranks."""
    if processes() == 1:
        return values
    sums = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def from_leader(value: R) -> R:
    """Rank 0's value."""
    if processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _tell(message: Any) -> None:
    from_leader(message)


def _hear() -> Any:
    try:
        return from_leader(None)
    except RuntimeError as failure:
        raise ConnectionError("the process of rank 0 ended; its own message says why") from failure
