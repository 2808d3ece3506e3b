"""The report's page: one file, light and dark, without requests to other hosts.

Its example pairs are those with the surest votes, those that the votes could not decide, and those known to be right or
wrong.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.filesize import decimal

from service.errors import InvalidImage
from trainer.errors import UserError
from trainer.files import read_json
from trainer.pool.pool import Pool
from trainer.progress import duration
from trainer.reporting import plots
from trainer.reporting.vote_table import cells
from trainer.voting.votes import PairVotes, load, margin

TEMPLATES = Path(__file__).with_name("templates")
SHOWN = 4
_SIDE = 176


def render(run: Path, report: dict[str, Any]) -> str:
    """The page of `report.json`, with plots and example pairs from the run's files."""
    voted = {entry["round"]: entry["vote"] for entry in report["rounds"] if "vote" in entry}
    return filled(
        "page.html.jinja",
        report=report,
        plots=plots.of_run(run, report),
        examples={number: examples(run / f"round-{number}") for number in voted},
        votes={f"round {number}": cells(figures) for number, figures in voted.items()},
    )


def filled(template: str, **values: Any) -> str:
    """Renders one of the templates."""
    from jinja2 import Environment, FileSystemLoader

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=FileSystemLoader(TEMPLATES))
    page.filters |= {"signed": "{:+z.1f} %".format, "duration": duration, "bytes": decimal}
    page.filters |= {"percent": lambda share: f"{100 * share:z.1f} %", "count": lambda value: f"{round(value):,}"}
    return page.get_template(template).render(values)


def examples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Title -> pairs of a round, with their pictures as data: URLs. Pairs whose pictures are gone are left out."""
    votes, pool = load(folder / "votes.jsonl"), Pool.load(folder / "pool.jsonl")
    known = [vote for vote in votes if vote.label is not None and {vote.first, vote.second} <= pool.by_id.keys()]
    decided = sorted(known, key=margin)
    chosen = {"Most decided": decided[::-1], "Closest": decided, **_audited(folder, known)}
    shown = {title: _shown(pairs, pool) for title, pairs in chosen.items()}
    return {title: pairs for title, pairs in shown.items() if pairs}


def thumbnail(picture: Image.Image) -> str:
    """A data: URL of the picture, scaled down."""
    small, file = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((_SIDE, _SIDE))
    small.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _audited(folder: Path, votes: Sequence[PairVotes]) -> dict[str, list[PairVotes]]:
    """The pairs whose truth an audit knows; a round itself never does."""
    if not (folder / "audit.json").exists():
        return {}
    audit, by_pair = read_json(folder / "audit.json"), {(vote.first, vote.second): vote for vote in votes}
    titles = {"Known to be right": "right", "Known to be wrong": "wrong"}
    return {
        title: [by_pair[first, second] for first, second in audit.get(name, []) if (first, second) in by_pair]
        for title, name in titles.items()
    }


def _shown(votes: Sequence[PairVotes], pool: Pool) -> list[dict[str, Any]]:
    """The first few pairs whose pictures still exist, no image twice."""
    found: list[dict[str, Any]] = []
    used: set[str] = set()
    for vote in votes:
        if used.isdisjoint({vote.first, vote.second}) and (pair := _pair(vote, pool)):
            found.append(pair)
            used |= {vote.first, vote.second}
        if len(found) == SHOWN:
            break
    return found


def _pair(vote: PairVotes, pool: Pool) -> dict[str, Any] | None:
    try:
        pictures = [thumbnail(pool.open(image)) for image in (vote.first, vote.second)]
    except (UserError, OSError, InvalidImage):
        return None
    share = vote.first_votes / (vote.first_votes + vote.second_votes)
    images = [pool.by_id[image] for image in (vote.first, vote.second)]
    names = [f"{image.kind.replace('_', ' ')} {image.level}" if image.kind else "original" for image in images]
    return {"pictures": pictures, "names": names, "shares": [share, 1 - share]}
