"""A device's memory: what is free of it, and what a piece of work takes at its peak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch.autograd import ProfilerConfig, ProfilerState, _disable_profiler_legacy, _enable_profiler_legacy

from trainer.training.distributed import local_world_size

_CGROUPS = Path("/sys/fs/cgroup")


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that `work` holds at once, beyond those held before. The allocator counts them."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    options = torch._C._profiler._ExperimentalConfig()
    _enable_profiler_legacy(ProfilerConfig(ProfilerState.CPU, False, True, False, False, False, options))
    try:
        work()
    finally:
        events = [event for thread in _disable_profiler_legacy() for event in thread]
    held = peak = 0
    for event in events:
        if event.kind() == "memory_alloc":
            held += event.cpu_memory_usage()
            peak = max(peak, held)
    return peak


def free_bytes(device: torch.device) -> int:
    """The bytes that this process may still take of the device. Processes under torchrun share a machine's evenly."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    own = Path("/proc/self/cgroup").read_text().splitlines()
    return min([_available(), *left_by_cgroups(own, _CGROUPS)]) // local_world_size()


def _available() -> int:
    """What the kernel can give without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def left_by_cgroups(own: Iterable[str], mounted: Path) -> Iterator[int]:
    """What each limit of a process's cgroups and those above leaves, of version 2 and 1. Files that were read count as
    free.

    Args:
        own: the lines of its `/proc/PID/cgroup`.
        mounted: the folder of the hierarchies.
    """
    for line in own:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        root, limit, used = (
            (mounted / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            if kinds
            else (mounted, "memory.max", "memory.current")
        )
        folder = root / path.lstrip("/")
        for each in (folder, *folder.parents):
            if each.is_relative_to(root) and (each / limit).is_file():
                yield from _left(each, limit, used)


def _left(folder: Path, limit: str, used: str) -> Iterator[int]:
    most = (folder / limit).read_text().strip()
    if most != "max":
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        yield max(0, int(most) - int((folder / used).read_text()) + files)
