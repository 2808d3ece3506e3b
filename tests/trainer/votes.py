"""Votes for tests, by the share of each order that is for the first image."""

from __future__ import annotations

from trainer.voting.votes import PairVotes


def exact(pair: str, forward: float, backward: float | None = None, tie_margin: float = 0.0) -> PairVotes:
    """Exact votes on a pair of one-letter images, alike in both orders unless told otherwise."""
    back = forward if backward is None else backward
    first, second = tuple(pair)
    votes = [[share, 1 - share] for share in (forward, back)]
    return PairVotes(first, second, *votes, unreadable=0.0, version="v1", by="exact", tie_margin=tie_margin)


def one_order(pair: str, forward: float) -> PairVotes:
    """Exact votes asked for in one order alone."""
    return PairVotes(pair[0], pair[1], [forward, 1 - forward], [0, 0], unreadable=0.0, version="v1", by="exact")
