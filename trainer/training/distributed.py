"""Many processes, one policy: torchrun's processes share its weights by FSDP2 and follow rank 0.

Only rank 0 runs the round: it talks to the service and writes files. Collective work (an update, gathering weights) is
a method decorated with `on_all_ranks`, of an object that every process built: rank 0 broadcasts its call, and the other
ranks, which wait in `follow`, repeat it. Without torchrun all of this does nothing.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from trainer import termination
from trainer.errors import RankLost
from trainer.termination import signals_deferred

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

_PATIENCE = timedelta(days=30)
"""The other ranks wait this long for rank 0, which votes for hours. If a process dies, torchrun ends all of them."""
_RANK_0_ENDS_SECONDS = 30.0
"""The other ranks let rank 0 end first for this long: torchrun exits with the code of the first that it sees fail."""
_sigterm_came = False
"""True once SIGTERM came to this process, which is not rank 0."""


@contextmanager
def process_group(device: str, dtype: str) -> Iterator[None]:
    """Joins torchrun's processes for the block. A single process needs a group of its own for bfloat16, which FSDP
    computes in while the weights under training stay float32."""
    if "WORLD_SIZE" not in os.environ and dtype == "float32":
        yield
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device)
    single = {} if "WORLD_SIZE" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    backends = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backends, timeout=_PATIENCE, **single)
    try:
        yield
        dist.barrier()  # the others fail if one leaves first
    finally:
        gc.collect()  # sharded weights hold on to the group
        dist.destroy_process_group()


def rank() -> int:
    """The rank of this process, 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes that share the policy."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_main() -> bool:
    """True on rank 0, which runs the round and writes files."""
    return rank() == 0


def on_all_ranks(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Repeats rank 0's calls of a method on all ranks, on the objects that `built` made there."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if world_size() == 1:
            return method(self, *args, **kwargs)
        with signals_deferred():  # a signal must not leave the others in mid-call
            if is_main():
                broadcast((method.__name__, args, kwargs))
            found = method(self, *args, **kwargs)
            if all_reduce_max(float(_sigterm_came)) and is_main() and not termination.came():
                signal.raise_signal(signal.SIGTERM)
            return found

    return call


@contextmanager
def built(kind: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> Iterator[S]:
    """Builds `kind(*args)` on every rank. During the block the other ranks repeat rank 0's `on_all_ranks` calls.

    If the block fails, nothing more is broadcast: the other ranks end with rank 0, which may be in mid-call.
    """
    broadcast((kind, args, kwargs))
    release()
    yield kind(*args, **kwargs)
    broadcast(None)


def follow() -> None:
    """Repeats rank 0's calls until its work is done.

    SIGTERM is passed on to rank 0 after the present call, because rank 0 needs the others to save a checkpoint.

    Raises:
        RankLost: rank 0 ended before its work was done.
    """
    signal.signal(signal.SIGTERM, _note_sigterm)
    while order := _receive():
        kind, args, kwargs = order
        target = None
        release()
        target = kind(*args, **kwargs)
        while call := _receive():
            name, arguments, options = call
            getattr(target, name)(*arguments, **options)


def run_on_main(device: str, dtype: str, work: Callable[[], R]) -> R | None:
    """Runs `work` on rank 0 while the other ranks follow. Returns its result there, None on the others.

    Raises:
        RankLost: on the other ranks: rank 0 ended.
    """
    with process_group(device, dtype):
        process = broadcast(os.getpid())
        if not is_main():
            try:
                follow()
            except (RankLost, RuntimeError):  # the latter in mid-call
                _wait_for_end(process)
                raise
            return None
        found = work()
        broadcast(None)
        return found


def evenly(passes: Sequence[T], spare: T) -> Iterator[tuple[T, bool]]:
    """This rank's passes, and whether each counts.

    All ranks get equally many, since they gather weights together: one with fewer than others repeats the `spare` one,
    which must not count.
    """
    for place in range(int(all_reduce_max(float(len(passes))))):
        yield (passes[place], True) if place < len(passes) else (spare, False)


def release() -> None:
    """Gives back the memory of what was `built` before and is no longer in use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def all_reduce_max(value: float) -> float:
    """The maximum over all ranks."""
    if world_size() == 1:
        return value
    box = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return float(box)


def all_reduce_sum(values: dict[str, float]) -> dict[str, float]:
    """The sum of each value over all ranks."""
    if world_size() == 1:
        return values
    sums = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def broadcast(value: R) -> R:
    """Rank 0's value, on all ranks."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _receive() -> Any:
    try:
        return broadcast(None)
    except RuntimeError as failure:
        raise RankLost("the process of rank 0 ended; its own message says why") from failure


def _wait_for_end(process: int) -> None:
    """Returns once torchrun has noticed the end of rank 0, whose process has this id; at once if it runs elsewhere."""
    here = os.environ.get("RANK") == os.environ.get("LOCAL_RANK")
    deadline = time.monotonic() + _RANK_0_ENDS_SECONDS
    while here and Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _note_sigterm(*_: object) -> None:
    global _sigterm_came
    _sigterm_came = True
