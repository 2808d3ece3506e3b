"""`make demo-seeds`: the demo with several trainer seeds, and the median of their gains.

python -m tests.benchmarks.seeds [--count 3] [--runs runs/demo-seeds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trainer.files import read_json, write_json


def main(
    count: Annotated[int, typer.Option(help="Number of seeds, from 0.")] = 3,
    runs: Annotated[Path, typer.Option(help="Folder of the runs, one per seed.")] = Path("runs/demo-seeds"),
) -> None:
    """Runs the demo once per seed and prints the gains."""
    reports = []
    for seed in range(count):
        folder = runs / f"seed-{seed}"
        if not (folder / "report.json").exists() or "seconds_total" not in read_json(folder / "report.json"):
            command = [sys.executable, "-m", "trainer.demo.run", "--run", str(folder), "--seed", str(seed)]
            subprocess.run(command, check=True)
        reports.append(read_json(folder / "report.json"))
    gains = [report["relative_gain_percent"] for report in reports]
    worst = [worst_change(report) for report in reports]
    summary = {"gains_percent": gains, "median_gain_percent": statistics.median(gains), "worst_changes": worst}
    write_json(runs / "summary.json", summary)
    table = Table("seed", "gain", "worst change of a set's PLCC", "seconds")
    for seed, report in enumerate(reports):
        table.add_row(str(seed), f"{gains[seed]:+.1f} %", f"{worst[seed]:+.3f}", f"{report['seconds_total']:.0f}")
    table.add_row("median", f"{summary['median_gain_percent']:+.1f} %", "", "", style="bold")
    Console().print(table)


def worst_change(report: dict[str, list[dict[str, dict[str, dict[str, float]]]]]) -> float:
    """Smallest change of a benchmark's raw PLCC from the base to the last round."""
    first, last = report["rounds"][0]["benchmarks"], report["rounds"][-1]["benchmarks"]
    return min(last[name]["plcc"] - first[name]["plcc"] for name in first)


if __name__ == "__main__":
    typer.run(main)
