"""The images of a round: `pool.jsonl`, and the variants that are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from service.contract import InfoResponse
from service.images.picture import FORMATS, Limits, take_heif
from trainer.files import read_json, write_json
from trainer.pool.build import build
from trainer.pool.pool import Pool
from trainer.pool.sources import Sources
from trainer.stages.context import RoundContext
from trainer.training.rollouts import Served, sample_scores, to_scores
from trainer.voting.groups import (
    STRENGTH_SAMPLES,
    Group,
    chain_images,
    chained_groups,
    pairs_of,
    random_groups,
    same_reference_groups,
    shuffled,
    strengths,
)
from trainer.voting.voters import cast, choose_voter
from trainer.voting.votes import Pair, PairVotes, load

_PNG_BYTES_A_PIXEL = 4
"""At most: three of RGB, and what rows and blocks add."""


def draw_pool(context: RoundContext) -> Pool:
    """The originals drawn, and their variants, which are yet to be made."""
    manifest = context.folder / "pool.jsonl"
    if manifest.exists():
        return Pool.load(manifest)
    s, info = context.settings, context.workers.info()
    limits = _limits(info)
    sources = Sources(s.pool, limits.max_bytes, s.pool_column, without=s.run)
    with context.stage("pool", unit="images") as advance:
        images, _ = build(
            sources, context.folder, images=s.originals, variants=s.variants, limits=limits,
            pixels=min(s.pixels, _most_pixels(info)), draw_seed=context.seed, variant_seed=s.seed, advance=advance,
        )  # fmt: skip
    return images


def make_variants(context: RoundContext, images: Pool, groups: Sequence[Group]) -> None:
    """Those that the groups show."""
    missing = images.missing(image for group in groups for image in group)
    if missing:
        with context.stage("variants", total=len(missing), unit="images") as advance:
            images.make(missing, advance)


def _limits(info: InfoResponse) -> Limits:
    """Which images the service takes."""
    return Limits(
        max_pixels=info.max_image_pixels, min_side=info.min_image_side, max_side=info.max_image_side,
        max_bytes=info.max_upload_bytes, formats=take_heif() if "HEIC" in info.formats else FORMATS,
    )  # fmt: skip


def _most_pixels(info: InfoResponse) -> int:
    """As many as the model sees, if the service says so, and as make no PNG longer than the service takes."""
    uploaded = info.max_upload_bytes // _PNG_BYTES_A_PIXEL
    return min(info.max_pixels or uploaded, uploaded)


def draw_groups(context: RoundContext, images: Pool) -> tuple[list[Group], list[Group]]:
    """The groups to train on, and those held back for the gate."""
    file = context.folder / "pairs.json"
    if not file.exists():
        training, held_back = _drawn(context, images)
        write_json(file, {"training": training, "held_back": held_back})
    groups = read_json(file)
    return groups["training"], groups["held_back"]


def _drawn(context: RoundContext, images: Pool) -> tuple[list[Group], list[Group]]:
    s, seed = context.settings, context.seed
    same = round(s.groups * s.same_reference_share) if context.number > 1 and s.variants else 0
    mixed = random_groups(images, s.groups - same + s.held_back_groups, s.group_size, seed)
    held_back, training = mixed[: s.held_back_groups], mixed[s.held_back_groups :]
    if s.pairs == "informative" and training:
        training = _informative(context, images, len(training))
    training = training + same_reference_groups(images, same, s.group_size, seed)
    return shuffled(training, seed), held_back


def _informative(context: RoundContext, images: Pool, count: int) -> list[Group]:
    """Groups by the scores that the model gives now."""
    size, seed = context.settings.group_size, context.seed
    drawn = chain_images(images, count, size, seed)
    make_variants(context, images, [drawn])
    with context.stage("scores", total=len(drawn), unit="images") as advance:
        served, k = Served(context.base), STRENGTH_SAMPLES
        answers = sample_scores(context.workers, images, drawn, served, samples=k, seed=seed, advance=advance)
    strength = strengths(drawn, to_scores(answers, context.profile))
    return chained_groups(strength, count, size, seed)


def ask_votes(context: RoundContext, images: Pool, groups: Sequence[Group]) -> list[PairVotes]:
    """The votes on all pairs of the groups."""
    votes, done = context.folder / "votes.jsonl", context.folder / "votes.done"
    if not done.exists():
        asked = pairs_of(groups)
        with context.stage("votes", total=len(asked), unit="pairs") as advance:
            context.workers.call(_cast, context, images, asked, votes, advance)
        write_json(done, {"pairs": len(asked)})
    return load(votes)


async def _cast(
    context: RoundContext, images: Pool, asked: list[Pair], file: Path, advance: Callable[[int], None]
) -> None:
    chosen = await choose_voter(
        context.settings, images, context.workers.asynchronous, version=context.base, profile=context.profile,
        seed=context.seed, probe=asked[0],
    )  # fmt: skip
    await cast(asked, chosen, file, advance=advance)
