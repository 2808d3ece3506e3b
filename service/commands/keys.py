"""`evoquality keys`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands.common import need, stop
from service.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Creates keys for the public routes.")

Name = Annotated[str, typer.Argument(help="Name of the caller: letters, digits, dots, dashes, underscores.")]
File = Annotated[Path, typer.Option(help="The service's keys_file, TOML or JSON; created if missing.", dir_okay=False)]
Rate = Annotated[int | None, typer.Option(min=1, help="Requests, or images of batches, a minute. Default: no limit.")]
InFlight = Annotated[int | None, typer.Option(min=1, help="Requests at the same time. Default: no limit.")]


@app.callback()
def main() -> None:
    """Creates keys for the public routes."""


@app.command()
def add(name: Name, file: File, requests_per_minute: Rate = None, max_in_flight: InFlight = None) -> None:
    """Creates a key, stores its hash, and prints the key. Keep it: it is not stored anywhere."""
    need("serve", "keys add")
    from service.api.keys import add_key

    try:
        print(add_key(file, name, requests_per_minute, max_in_flight))
    except UserError as error:
        stop(f"Nothing was changed: {error}.")
    except OSError as error:
        stop(f"Nothing was changed: {file} cannot be written: {error.strerror}.")
