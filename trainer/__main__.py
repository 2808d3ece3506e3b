"""The console script. It listens for signals before anything else is loaded: the kernel drops signals without a handler
that are sent to a container's first process."""

from __future__ import annotations

import sys

from service.errors import UserError
from service.extras import require
from trainer import termination


def main() -> None:
    """See `trainer.cli`."""
    termination.listen()
    try:
        require("trainer", next(iter(sys.argv[1:]), "evoquality-trainer"))
    except UserError as missing:
        print(f"evoquality-trainer: {missing}", file=sys.stderr)
        sys.exit(2)
    from trainer.cli import app

    app()


if __name__ == "__main__":
    main()
