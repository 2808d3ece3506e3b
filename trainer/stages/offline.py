"""The offline stage, which makes pseudo-labels: the images (`pool.jsonl`), the groups that are compared (`pairs.json`),
and the votes on their pairs (`votes.jsonl`, appended as they come; `votes.done` ends the stage)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from evoquality.contract import InfoResponse
from service.images.picture import FORMATS, Limits, take_heif
from trainer.errors import NothingToLearn
from trainer.files import read_json, write_json
from trainer.pool.build import build
from trainer.pool.pool import Pool
from trainer.pool.sources import Sources
from trainer.promotion.behaviour import decided
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
from trainer.voting.votes import Pair, PairVotes, labels_of, load

_PNG_BYTES_A_PIXEL = 4
"""At most: three bytes of RGB, and the overhead of rows and blocks."""


def draw_pool(context: RoundContext) -> Pool:
    """Draws the originals and plans their variants."""
    manifest = context.folder / "pool.jsonl"
    if manifest.exists():
        return Pool.load(manifest)
    s, info = context.settings, context.workers.info()
    limits = _limits(info)
    sources = Sources(s.pool, limits.max_bytes, s.pool_column, s.run, limits.formats, s.follow_links)
    with context.stage("pool", unit="images") as advance:
        images, drawn = build(
            sources,
            context.folder,
            images=s.originals,
            variants=s.variants,
            limits=limits,
            pixels=min(s.pixels, _most_pixels(info)),
            most_unreadable=s.pool_unreadable,
            draw_seed=context.seed,
            variant_seed=s.seed,
            advance=advance,
        )
    if drawn.unreadable:
        context.stages.say(f"round {context.number}: {drawn}")
    if sources.passed.count:
        context.stages.say(f"passed over, by their names: {sources.passed}")
    return images


def draw_groups(context: RoundContext, images: Pool) -> tuple[list[Group], list[Group]]:
    """The groups to train on, and those held back for the gate."""
    file = context.folder / "pairs.json"
    if not file.exists():
        training, held_back = _drawn(context, images)
        write_json(file, {"training": training, "held_back": held_back})
    groups = read_json(file)
    return groups["training"], groups["held_back"]


def make_variants(context: RoundContext, images: Pool, groups: Sequence[Group]) -> None:
    """Makes the groups' variants that are missing."""
    missing = images.missing(image for group in groups for image in group)
    if missing:
        with context.stage("variants", total=len(missing), unit="images") as advance:
            images.make(missing, advance)


def ask_votes(context: RoundContext, images: Pool, groups: Sequence[Group]) -> list[PairVotes]:
    """The votes on all pairs of the groups."""
    votes, done = context.folder / "votes.jsonl", context.folder / "votes.done"
    if not done.exists():
        pairs = pairs_of(groups)
        with context.stage("votes", total=len(pairs), unit="pairs") as advance:
            context.workers.call(_cast, context, images, pairs, votes, advance)
        write_json(done, {"pairs": len(pairs)})
    return load(votes)


def check_decided(context: RoundContext, training: Sequence[Group], votes: Sequence[PairVotes]) -> None:
    """Raises NothingToLearn if the votes decide fewer of the pairs to train on than `least_decided`."""
    s, pairs = context.settings, pairs_of(training)
    labels = labels_of(votes, soft=s.labels == "soft")
    unreadable = sum(pair not in labels for pair in pairs)
    ties = sum(labels.get(pair) == 0.5 for pair in pairs)
    clear = len(pairs) - unreadable - ties
    if clear <= s.least_decided * len(pairs):
        raise NothingToLearn(
            f"nothing to learn from: the votes decide {clear:,} of {len(pairs):,} pairs (--least-decided asks for "
            f"more than {s.least_decided:.0%}), {ties:,} are ties and {unreadable:,} have no readable answer; "
            + _REMEDIES["answers" if unreadable > ties else "ties"]
        )


def check_gate(context: RoundContext, held_back: Sequence[Group], votes: Sequence[PairVotes]) -> None:
    """Raises NothingToLearn if the votes decide no held-back pair: the gate could not tell what was learnt."""
    if not decided(held_back, labels_of(votes)):
        raise NothingToLearn(
            f"nothing could be shown to be learnt: the votes decide none of the {len(pairs_of(held_back)):,} held-back "
            "pairs, by which "
            "the gate compares a candidate with the version before; begin a new run with more --held-back-groups, or a "
            "--pool of more different pictures"
        )


_REMEDIES = {
    "answers": "serve the model with the --profile of the format in which it answers, and begin a new run",
    "ties": "begin a new run with a --pool of more different pictures, with --variants, or with a smaller --tie-margin",
}


async def _cast(
    context: RoundContext, images: Pool, pairs: list[Pair], file: Path, advance: Callable[[int], None]
) -> None:
    voter = await choose_voter(
        context.settings,
        images,
        context.workers.asynchronous,
        version=context.base,
        profile=context.profile,
        seed=context.seed,
        pairs=pairs,
    )
    await cast(pairs, voter, file, advance=advance)


def _limits(info: InfoResponse) -> Limits:
    """The images that the service accepts."""
    return Limits(
        max_pixels=info.max_image_pixels,
        min_side=info.min_image_side,
        max_side=info.max_image_side,
        max_bytes=info.max_upload_bytes,
        formats=take_heif() if "HEIF" in info.formats else FORMATS,
    )


def _most_pixels(info: InfoResponse) -> int:
    """The model's own limit, if the service has one, and that of a PNG no longer than the service accepts."""
    uploaded = info.max_upload_bytes // _PNG_BYTES_A_PIXEL
    return min(info.max_pixels or uploaded, uploaded)


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
    chain = chain_images(images, count, size, seed)
    make_variants(context, images, [chain])
    with context.stage("scores", total=len(chain), unit="images") as advance:
        base, k = Served(context.base), STRENGTH_SAMPLES
        answers = sample_scores(context.workers, images, chain, base, samples=k, seed=seed, advance=advance)
    return chained_groups(strengths(chain, to_scores(answers, context.profile)), count, size, seed)
