"""The console script. It listens for signals before anything else is loaded: a container's first process does not
notice those that it did not ask for."""

from __future__ import annotations

from trainer import termination


def main() -> None:
    """See `trainer.cli`."""
    termination.listen()
    from trainer.cli import app

    app()


if __name__ == "__main__":
    main()
