"""Which images are compared with each other: `pairs.json`."""

from __future__ import annotations

from trainer.files import read_json, write_json
from trainer.pool.pool import Pool
from trainer.stages.context import RoundContext
from trainer.stages.pool import make_variants
from trainer.training import scores
from trainer.training.served import Served
from trainer.voting import informative, pairs
from trainer.voting.pairs import Group


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
    mixed = pairs.random_groups(images, s.groups - same + s.held_back_groups, s.group_size, seed)
    held_back, training = mixed[: s.held_back_groups], mixed[s.held_back_groups :]
    if s.pairs == "informative" and training:
        training = _informative(context, images, len(training))
    training = training + pairs.same_reference_groups(images, same, s.group_size, seed)
    return pairs.shuffled(training, seed), held_back


def _informative(context: RoundContext, images: Pool, count: int) -> list[Group]:
    """Groups by the scores that the model gives now."""
    size, seed = context.settings.group_size, context.seed
    drawn = informative.drawn(images, count, size, seed)
    make_variants(context, images, [drawn])
    with context.stage("scores", total=len(drawn), unit="images") as advance:
        served, k = Served(context.base), informative.SAMPLES
        answers = scores.sample(context.workers, images, drawn, served, samples=k, seed=seed, advance=advance)
    strength = informative.strengths(drawn, scores.to_scores(answers, context.profile))
    return informative.chained_groups(strength, count, size, seed)
