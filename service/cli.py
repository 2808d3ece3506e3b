"""`evoquality serve | score | compare | rank | versions | keys | info`."""

from __future__ import annotations

import typer

from service.commands.common import need
from service.commands.compare import compare, rank
from service.commands.keys import app as keys
from service.commands.score import score
from service.commands.versions import app as versions
from service.commands.versions import info
from service.extras import is_installed
from service.terminal import any_terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
if is_installed("serve"):
    from service.commands.serve import serve

    app.command()(serve)
else:

    @app.command("serve", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def without_server() -> None:
        """Serves the active version of a store; needs `pip install 'evoquality-service[cpu]'` (or `[gpu]`)."""
        need("cpu", "serve")


for command in (score, compare, rank, info):
    app.command()(command)
app.add_typer(versions, name="versions")
app.add_typer(keys, name="keys")


@app.callback()
def evoquality() -> None:
    """Judges the perceptual quality of images with a vision-language model that improves itself.

    Start with `evoquality serve --checkpoint trainer/demo/checkpoint`, then
    `evoquality score photo.jpg` from another terminal; `evoquality score photos/ --out scores.csv` for a folder.
    """


def main() -> None:
    """The console script."""
    with any_terminal():
        app()


if __name__ == "__main__":
    main()
