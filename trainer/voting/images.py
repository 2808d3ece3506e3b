"""The images of pairs, as requests carry them."""

from __future__ import annotations

from collections.abc import Sequence

from evoquality import encode_image
from trainer.pool.pool import Pool
from trainer.voting.vote import Pair


def encoded(pool: Pool, pairs: Sequence[Pair]) -> dict[str, str]:
    """Each image of the pairs once, by its content id."""
    ids = {image for pair in pairs for image in pair}
    return {image: encode_image(pool.bytes_of(image)) for image in ids}
