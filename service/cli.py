"""`evoquality serve | score | compare | rank | versions | info`."""

from __future__ import annotations

import typer

from service.commands.compare import compare, rank
from service.commands.keys import app as keys
from service.commands.score import score
from service.commands.serve import serve
from service.commands.versions import app as versions
from service.commands.versions import info

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (serve, score, compare, rank, info):
    app.command()(command)
app.add_typer(versions, name="versions")
app.add_typer(keys, name="keys")


@app.callback()
def main() -> None:
    """Judges the perceptual quality of images with a vision-language model that improves itself.

    Start with `evoquality serve --checkpoint trainer/demo/checkpoint`, then
    `evoquality score photo.jpg` from another terminal; `evoquality score photos/ --out scores.csv` for a folder.
    """


if __name__ == "__main__":
    app()
