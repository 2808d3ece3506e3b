"""The images of a round: `pool.jsonl`, and the variants that are used."""

from __future__ import annotations

from collections.abc import Sequence

from evoquality.contract import InfoResponse
from service.images.picture import FORMATS, Limits, take_heif
from trainer.pool.build import build
from trainer.pool.pool import Pool
from trainer.pool.sources import Sources
from trainer.stages.context import RoundContext
from trainer.voting.pairs import Group

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
