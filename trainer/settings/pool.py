"""Which images a round compares."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from trainer.pool.sources import paths
from trainer.settings.service import CONFIG, Count, Share

_PLACES_AN_ORIGINAL = 4


class PoolSettings(BaseSettings):
    """The images of a round, their variants, and the groups they are compared in."""

    model_config = CONFIG

    pool: Path
    """The unlabelled images: a folder, a quoted pattern ('photos/**/*.jpg'), a list (.txt: one path a line), Parquet
    files (.parquet) or WebDataset shards ('shards-{000..127}.tar'). Millions are read as a stream."""
    images: Count | None = None
    """Originals that each round draws from the pool, anew. Default: one for every four places in its groups (the
    paper: 10,000 for 20,000 pairs), or one for as many as it has variants; all if the pool has fewer."""
    pool_column: str | None = None
    """Column of the Parquet files with the images' bytes or paths. Default: the first that looks like one."""

    pixels: Count = 1_048_576
    """Originals with more pixels are scaled down to this many when they are drawn, before they are distorted; or to the
    service's own max_pixels, beyond which the model sees nothing, if that is set and smaller."""
    variants: int = Field(default=10, ge=0, le=35)
    """Distorted variants made of each image (the paper: 10)."""
    groups: Count = 100
    """Groups of images compared with each other; each is one training step an epoch."""
    group_size: int = Field(default=12, ge=2, le=64)
    """Images a group, all paired: 12 give 66 pairs. They are each other's partners in a step."""
    held_back_groups: int = Field(default=4, ge=1)
    """Groups voted on but not trained on, for the gate."""
    pairs: Literal["random", "informative"] = "random"
    """How groups are drawn: at random, as the paper does, or of images that the model scores alike now. At equal votes
    random ones told more of the embedded model (README)."""
    same_reference_share: Share = 0.5
    """From round 2 on: share of groups that compare the distortions of one original; none without variants."""

    @property
    def places(self) -> int:
        """Places for images in all groups of a round."""
        return (self.groups + self.held_back_groups) * self.group_size

    @property
    def originals(self) -> int:
        """How many originals a round draws, if the pool has as many."""
        return self.images or math.ceil(self.places / min(_PLACES_AN_ORIGINAL, 1 + self.variants))

    @model_validator(mode="after")
    def _pool_exists(self) -> PoolSettings:
        if not any(path.exists() for path in paths(self.pool)):
            raise ValueError(
                f"the pool {self.pool} is not a folder, nor a list, Parquet file or shard, nor a pattern that matches "
                "one; name what holds your images"
            )
        return self
