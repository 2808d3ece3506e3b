"""`make replicas`: three replicas behind HAProxy follow the store's pointer under traffic.

    python -m tests.benchmarks.replicas [--run runs/replicas] [--spread 30]

Starts `evoquality serve --follow` three times on one store, HAProxy before them and callers before that; promotes
three versions, rolls back once, then points at a damaged version. Writes `replicas.json` and prints what happened.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.benchmarks.replicas.balancer import installed
from tests.benchmarks.replicas.play import Play
from tests.benchmarks.replicas.table import show
from trainer.files import write_json
from trainer.progress import Stages


def main(
    run: Annotated[Path, typer.Option(help="Folder for everything; emptied first.")] = Path("runs/replicas"),
    follow: Annotated[float, typer.Option(help="How often a replica reads the pointer, in seconds.")] = 2,
    spread: Annotated[float, typer.Option(help="A replica swaps after a random part of this, in seconds.")] = 10,
) -> None:
    """Shows that replicas follow the store's pointer, one after the other, without a failed or mixed answer."""
    if installed() is None:
        sys.exit("HAProxy is needed (apt-get install haproxy)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    shutil.rmtree(run, ignore_errors=True)
    figures = Play(run, follow, spread, Stages(run / "stages.jsonl")).perform()
    write_json(run / "replicas.json", figures)
    show(figures, Console())


if __name__ == "__main__":
    typer.run(main)
