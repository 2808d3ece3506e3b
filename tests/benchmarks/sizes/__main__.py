"""`make tables`: the tables of k8s/README.md: what Qwen2.5-VL 3B, 7B and 32B take, and what a round of 7B takes.

python -m tests.benchmarks.sizes            writes them there
python -m tests.benchmarks.sizes --show     prints them

Computed from shapes and counts alone: see `memory.py` and `rounds.py` for what is assumed. No GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks.markdown import markdown
from tests.benchmarks.sizes import memory, rounds
from tests.benchmarks.sizes.memory import GIB, GPUS, Kind
from tests.benchmarks.sizes.models import PUBLISHED, parameters, weightless
from tests.benchmarks.sizes.rounds import Round
from tests.benchmarks.tables import Tables, write

README = Path("k8s/README.md")
KINDS: dict[Kind, str] = {"lora": "LoRA", "full": "all weights"}
CHECKS = 2
"""How often a swap reads a version before it closes the gate: for its hashes, and for values that are not finite."""


def serving() -> str:
    """Engines: bytes, and the fewest GPUs of each size with the full-length answers that they hold at once."""
    heading = ["", "parameters", "weights", "keys and values of a token", "of 64 answers", "adapters", *GPUS]
    return markdown(heading, ([name, *_serving(name)] for name in PUBLISHED))


def _serving(name: str) -> Iterator[str]:
    need = memory.serving(name)
    yield f"{parameters(weightless(PUBLISHED[name])):,}"
    yield _gib(need.weights)
    yield f"{need.token // 1024} KiB"
    yield _gib(memory.DEFAULTS.max_num_seqs * memory.MAX_MODEL_LEN * need.token)
    yield _gib(need.adapters)
    for gib in GPUS.values():
        held = ((gpus, need.sequences(gib, gpus)) for gpus in memory.TENSOR_PARALLEL)
        yield next((f"{gpus} ({most})" for gpus, most in held if most), "–")


def training() -> str:
    """Trainers: bytes, and the fewest GPUs of each size."""
    heading = [
        "",
        "trained",
        "weights, gradients, moments, reference",
        "activations",
        *GPUS,
        "host memory",
        "checkpoint",
    ]
    return markdown(
        heading, ([name, label, *_training(name, kind)] for name in PUBLISHED for kind, label in KINDS.items())
    )


def _training(name: str, kind: Kind) -> Iterator[str]:
    need = memory.training(name, kind)
    yield _gib(need.states)
    yield _gib(need.activations)
    share = memory.DEFAULTS.gpu_memory_utilization
    for gib in GPUS.values():
        fits = (str(count) for count in memory.PROCESSES if need.on_each(count) <= share * gib * GIB)
        yield next(fits, "–")
    yield f"{_gib(need.loading)} a process"
    yield _gib(need.checkpoint)


def disk() -> str:
    """Versions: bytes on the volume, and what a swap reads there."""
    heading = [
        "",
        "a version",
        "after two rounds",
        "while a candidate is added",
        "read before a swap",
        "in its blackout",
    ]
    return markdown(heading, ([name, *_disk(2 * parameters(weightless(PUBLISHED[name])))] for name in PUBLISHED))


def _disk(version: int) -> Iterator[str]:
    yield from (_gb(version), _gb(3 * version), f"{_gb(2 * version)} more", _gb(CHECKS * version))
    yield f"{_gb(version)}, {version / 1e9:.0f} s at 1 GB/s"


def cost() -> str:
    """A round of 7B."""
    columns = {
        "the paper": rounds.paper(),
        "its counts, this trainer's way": rounds.with_the_papers_counts("full"),
        "this trainer, all weights": rounds.ours("full"),
        "this trainer, LoRA": rounds.ours("lora"),
    }
    rows: dict[str, Callable[[Round], str]] = {
        "pairs": lambda of: f"{of.pairs:,}",
        "votes (passes where exact)": lambda of: f"{of.votes:,}",
        "pictures in steps": lambda of: f"{of.trained:,}",
        "scores sampled": lambda of: f"{of.rollouts:,}",
        **{f"PFLOP of {name}": _pflop(name) for name in rounds.paper().flops},
        "A100 hours": lambda of: f"{rounds.hours(of):.1f}",
    }
    return markdown(["", *columns], ([name, *map(tell, columns.values())] for name, tell in rows.items()))


def _pflop(name: str) -> Callable[[Round], str]:
    return lambda of: f"{of.flops[name] / 1e15:,.0f}"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


TABLES: Tables = {"serving-sizes": serving, "training-sizes": training, "disk-sizes": disk, "round-cost": cost}


def main(show: Annotated[bool, typer.Option(help="Print the tables instead.")] = False) -> None:
    """What the models and a round take, computed."""
    if show:
        print("\n\n".join(f"{name}\n\n{table()}" for name, table in TABLES.items()))
    else:
        write(TABLES, README)


if __name__ == "__main__":
    typer.run(main)
