"""`make bench-train`: the trainer's speed against named baselines. Prints a table and writes `runs/bench/train.json`.

python -m tests.benchmarks.train [passes] [memory] [steps] [votes]    all without arguments
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from tests.benchmarks.train.memory import measure_memory
from tests.benchmarks.train.passes import THREADS, compare_passes
from tests.benchmarks.train.steps import (
    EMBEDDED,
    IMAGES,
    SAMPLES,
    Steps,
    large,
    ours,
    prepare,
    readable,
    service,
    serving_large,
    trl,
)
from tests.benchmarks.train.votes import measure_votes

OUT = Path("runs/bench/train.json")
ROUNDS = 2
"""Number of times that both trainers are measured, in turn."""
OUR_STEPS, TRL_STEPS = 6, 3
"""Steps each time, warm-up included."""
CONSOLE = Console()


def bench_passes(folder: Path) -> dict[str, Any]:
    """Measures (a) shared and (b) repeated prefix."""
    found = compare_passes(large(folder / "large"))
    table = [
        row
        for each in found
        for row in (
            {"side": "(a) shared prefix", "what": f"pass, K = {each.samples}", "seconds": each.shared},
            {"side": "(b) repeated prefix", "what": f"pass, K = {each.samples}", "seconds": each.repeated},
        )
    ]
    ratios = {f"repeated_over_shared_k{each.samples}": each.ratio for each in found}
    return {"table": table, "ratios": ratios, "passes": {"threads": THREADS, "measured": [asdict(e) for e in found]}}


def bench_memory(_: Path) -> dict[str, Any]:
    """Measures the memory of a pass with a chunked head and with all logits at once."""
    found = measure_memory()
    largest = max(found, key=lambda each: each.plain)
    return {
        "ratios": {"plain_over_chunked_memory": largest.plain / largest.chunked},
        "memory": [asdict(each) for each in found],
    }


def bench_steps(folder: Path) -> dict[str, Any]:
    """Measures (c) this trainer and (d) TRL, in turn beside one running service, which idles while TRL trains."""
    checkpoint = readable(large(folder / "large"), folder / "readable")
    sides: dict[str, list[Steps]] = {"ours": [], "trl": []}
    (folder / "serving").mkdir()
    with serving_large(checkpoint, folder / "serving") as served:
        for turn in range(ROUNDS):
            setting = prepare(folder / f"ours-{turn}", checkpoint, OUR_STEPS + 1, seed=2 * turn)
            sides["ours"].append(ours(setting, served))
            sides["trl"].append(trl(prepare(folder / f"trl-{turn}", checkpoint, TRL_STEPS, seed=2 * turn + 1)))
    seconds = {side: statistics.median(s for run in runs for s in run.seconds) for side, runs in sides.items()}
    what = f"step, {IMAGES} images, K = {SAMPLES}"
    return {
        "table": [
            {"side": "(c) this trainer", "what": what, "seconds": seconds["ours"]},
            {"side": "(d) TRL's GRPOTrainer", "what": what, "seconds": seconds["trl"]},
        ],
        "ratios": {"trl_over_ours_k8": seconds["trl"] / seconds["ours"]},
        "steps": {side: [asdict(run) for run in runs] for side, runs in sides.items()},
    }


def bench_votes(folder: Path) -> dict[str, Any]:
    """Counts the votes that a pair takes."""
    (folder / "votes").mkdir()
    with service(EMBEDDED, folder / "votes") as served:
        return {"votes": measure_votes(served, folder / "votes" / "cast")}


PARTS = {"passes": bench_passes, "memory": bench_memory, "steps": bench_steps, "votes": bench_votes}


def run(parts: list[str]) -> dict[str, Any]:
    """Runs the parts. Returns the contents of `train.json`."""
    result: dict[str, Any] = {"table": [], "ratios": {}}
    for name in parts:
        CONSOLE.print(f"{name} ...")
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[name](Path(folder))
        result["table"] += found.pop("table", [])
        result["ratios"] |= found.pop("ratios", {})
        result |= found
    return result


def _print(result: dict[str, Any]) -> None:
    table = Table("side", "what", "seconds")
    for row in result["table"]:
        table.add_row(row["side"], row["what"], f"{row['seconds']:.3f}")
    CONSOLE.print(table)
    if "memory" in result:
        _print_memory(result["memory"])
    votes = {name: result["votes"][name] for name in ("per_pair_over_full", "agreement")} if "votes" in result else {}
    CONSOLE.print_json(data={"ratios": result["ratios"], "votes": votes})


def _print_memory(peaks: list[dict[str, Any]]) -> None:
    table = Table("vocabulary", "answer", "chunked", "all at once", "gradients apart")
    for row in peaks:
        sizes = (decimal(row["chunked"]), decimal(row["plain"]))
        table.add_row(f"{row['vocabulary']:,}", str(row["answer"]), *sizes, f"{row['gradient_difference']:.1g}")
    CONSOLE.print(table)


if __name__ == "__main__":
    measured = run(sys.argv[1:] or list(PARTS))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(measured, indent=2) + "\n")
    _print(measured)
