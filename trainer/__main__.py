"""The console script. It listens for signals before anything else is loaded: the kernel drops signals without a handler
that are sent to a container's first process."""

from __future__ import annotations

from trainer import termination


def main() -> None:
    """See `trainer.cli`."""
    termination.listen()
    from trainer.cli import app

    app()


if __name__ == "__main__":
    main()
