"""The votes on the groups' pairs: `votes.jsonl`, appended as they come; `votes.done` ends the stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.files import write_json
from trainer.pool.pool import Pool
from trainer.stages.context import RoundContext
from trainer.voting import pairs, vote, voter
from trainer.voting.cast import cast
from trainer.voting.pairs import Group


def ask_votes(context: RoundContext, images: Pool, groups: Sequence[Group]) -> list[vote.PairVotes]:
    """The votes on all pairs of the groups."""
    votes, done = context.folder / "votes.jsonl", context.folder / "votes.done"
    if not done.exists():
        asked = pairs.pairs_of(groups)
        with context.stage("votes", total=len(asked), unit="pairs") as advance:
            context.workers.call(_cast, context, images, asked, votes, advance)
        write_json(done, {"pairs": len(asked)})
    return vote.load(votes)


async def _cast(
    context: RoundContext, images: Pool, asked: list[vote.Pair], file: Path, advance: Callable[[int], None]
) -> None:
    chosen = await voter.choose(
        context.settings, images, context.workers.asynchronous, version=context.base, profile=context.profile,
        seed=context.seed, probe=asked[0],
    )  # fmt: skip
    await cast(asked, chosen, file, advance=advance)
