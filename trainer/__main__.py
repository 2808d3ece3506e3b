"""The console script. It listens for signals before anything else is loaded: the kernel drops signals without a handler
that are sent to a container's first process."""

from __future__ import annotations

import sys

from service.errors import UserError
from service.extras import require
from trainer import termination

_COMMANDS = ("evolve", "evaluate", "audit", "report")


def main() -> None:
    """See `trainer.cli`."""
    begin(next((word for word in sys.argv[1:2] if word in _COMMANDS), "evoquality-trainer"))
    from trainer.cli import app

    app()


def begin(program: str) -> None:
    """Listens for signals, and ends a program with one sentence and exit code 2 if the extra `trainer` is missing."""
    termination.listen()
    try:
        require("trainer", program)
    except UserError as missing:
        print(f"evoquality-trainer: {missing}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
