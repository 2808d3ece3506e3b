"""`evoquality compare` and `evoquality rank`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from evoquality.contract import MAX_RANKED, CompareOptions, RankOptions, RankResponse
from service.commands.common import (
    LOCAL,
    TIMEOUT_S,
    AsJson,
    EvenThoughts,
    FollowLinks,
    Image,
    Key,
    ModeChoice,
    Pattern,
    Seed,
    Temperature,
    TimeLimit,
    Url,
    Votes,
    ask,
    number,
    out,
    show,
    stop,
    unread,
)
from service.commands.common import options as chosen
from service.commands.files import images_in
from service.files import printable


def compare(
    first: Image,
    second: Image,
    mode: ModeChoice = None,
    samples: Votes = None,
    thoughts: EvenThoughts = None,
    temperature: Temperature = None,
    seed: Seed = None,
    margin: Annotated[
        float, typer.Option(min=0, max=0.5, help="Call it a tie within this distance of one half.")
    ] = 0.0,
    url: Url = LOCAL,
    key: Key = None,
    timeout: TimeLimit = TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Says which of two images looks better, asked in both orders of presentation."""
    options = chosen(
        CompareOptions, mode=mode, samples=samples, thoughts=thoughts, temperature=temperature, seed=seed, margin=margin
    )
    answer = ask(url, key, lambda client: client.compare(first, second, options), timeout)
    if as_json:
        print(answer.model_dump_json())
        return
    names = {"first": printable(first), "second": printable(second), "tie": "a tie", None: "no readable answer"}
    out.print(f"[bold]{escape(names[answer.preferred])}[/bold]")
    out.print(
        f"probability of the first {number(answer.probability_first)}, position bias {number(answer.position_bias)}, "
        f"{unread(answer, ' unreadable')} (version {answer.version})"
    )


def rank(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Image files, and folders.", exists=True)],
    pattern: Pattern = None,
    follow_links: FollowLinks = False,
    comparisons: Annotated[
        int | None, typer.Option(min=1, max=2016, help="Pairs to compare. Default: n log2(n).")
    ] = None,
    mode: ModeChoice = None,
    samples: Votes = None,
    thoughts: EvenThoughts = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = LOCAL,
    key: Key = None,
    timeout: TimeLimit = TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Orders 2 to 64 images from the best to the worst, by comparing chosen pairs of them.

    `strength` is a Bradley-Terry strength: of two images, the one stronger by d wins with probability
    1 / (1 + exp(-d)). A difference of less than about two standard errors means that the images cannot be told apart.
    """
    options = chosen(
        RankOptions,
        mode=mode,
        samples=samples,
        thoughts=thoughts,
        temperature=temperature,
        seed=seed,
        comparisons=comparisons,
    )
    found = ask(url, key, lambda client: images_in(client, paths, pattern, follow_links), timeout)
    images = found.files
    if not 2 <= len(images) <= MAX_RANKED:
        stop(f"{len(images)} images found. Give 2 to {MAX_RANKED}.")
    answer = ask(url, key, lambda client: client.rank(images, options), timeout)
    if as_json:
        for place in answer.ranking:
            print(json.dumps({"image": printable(images[place.index]), **place.model_dump(exclude={"image"})}))
    else:
        show(_table(images, answer))
        out.print(
            f"{answer.comparisons} of {answer.pairs} pairs compared, {unread(answer, ' unreadable')} "
            f"(version {answer.version})"
        )
    raise typer.Exit(0 if found.complete else 1)


def _table(images: list[Path], answer: RankResponse) -> Table:
    table = Table("rank", "image", "strength", "± error")
    for place in answer.ranking:
        rank = "–" if place.rank is None else str(place.rank)
        name = escape(printable(images[place.index]))
        table.add_row(rank, name, number(place.strength), number(place.standard_error))
    return table
