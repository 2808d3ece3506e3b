"""Large originals: scaled down once, so that whatever is made of them is short enough for the service."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.engine.pixels import PixelLimits
from service.images.picture import Limits, decode
from tests.service.conftest import World, encoded
from tests.trainer.replicas import Replicas
from trainer.pool.build import build, shrunk
from trainer.pool.distortions import FAMILIES
from trainer.pool.pool import Pool
from trainer.pool.sources import Entry, Sources
from trainer.progress import Stages
from trainer.settings.evolve import EvolveSettings
from trainer.stages.context import RoundContext
from trainer.stages.offline import draw_pool

SERVICE = Limits(max_pixels=40_000_000, min_side=28)
"""The limits of a service with its default settings."""
PIXELS = EvolveSettings.model_fields["pixels"].default


def noisy(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def built(files: dict[str, bytes], folder: Path, pixels: int = PIXELS, variants: int = 0) -> Pool:
    """The pool of files that lie nowhere, as those in a shard."""
    entries = [Entry(name, lambda data=data: data) for name, data in files.items()]
    return build(
        entries, folder, images=10, variants=variants, limits=SERVICE, pixels=pixels, most_unreadable=0.5, draw_seed=0,
        variant_seed=0, advance=lambda count, note: None,
    )[0]  # fmt: skip


def test_of_a_noisy_photograph_of_twelve_megapixels_all_files_can_be_uploaded_and_torch_sees_what_the_engine_sees(
    tmp_path: Path,
) -> None:
    photo = encoded(noisy(4000, 3000), "JPEG")
    pool = built({"photo.jpg": photo}, tmp_path / "round", variants=35)
    shown = [image.id for image in pool.images if image.kind in (None, *FAMILIES["noise"])]
    assert len(shown) == 1 + len(FAMILIES["noise"])
    for image in shown:
        data = pool.bytes_of(image)
        assert len(data) < 4 * 2**20 < SERVICE.max_bytes
        assert pool.open(image).size == (1181, 886)
        assert pool.open(image).tobytes() == decode(data, SERVICE).tobytes()


def test_smaller_originals_are_copied_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "small.jpg"
    file.write_bytes(encoded(noisy(80, 50), "JPEG"))
    pool, _ = build(
        Sources(tmp_path, SERVICE.max_bytes), tmp_path / "round", images=1, variants=0, limits=SERVICE, pixels=4000,
        most_unreadable=0.5, draw_seed=0, variant_seed=0, advance=lambda count, note: None,
    )  # fmt: skip
    assert Path(pool.images[0].path).parent == tmp_path / "round" / "originals"
    assert pool.bytes_of(pool.images[0].id) == file.read_bytes()


def turned() -> dict[str, object]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


def profiled() -> dict[str, object]:
    return {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}


@pytest.mark.parametrize("options", [turned(), profiled()], ids=["turned", "with a profile"])
def test_a_large_original_is_decoded_as_the_service_does_it_and_keeps_no_metadata(
    options: dict[str, object], tmp_path: Path
) -> None:
    data = encoded(noisy(120, 80), "JPEG", **options)
    pool = built({"a.jpg": data}, tmp_path / "round", pixels=2400)
    only = pool.images[0]
    assert pool.open(only.id).tobytes() == shrunk(decode(data, SERVICE), 2400, 28).tobytes()
    with Image.open(io.BytesIO(pool.bytes_of(only.id))) as file:
        assert (file.format, file.info) == ("PNG", {})


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (1025, 1024), (10_000, 110), (2800, 28), (9999, 100)])
@pytest.mark.parametrize("pixels", [PIXELS, 3136])
def test_a_picture_is_scaled_in_both_directions_alike_and_stays_one_that_the_service_takes(
    size: tuple[int, int], pixels: int
) -> None:
    small = shrunk(Image.new("L", size), pixels, SERVICE.min_side)
    assert small.width * small.height <= pixels or min(small.size) == SERVICE.min_side
    scale = min(small.size) / min(size)
    assert max(size) * scale - 1 < max(small.size) <= max(size) * scale
    decode(encoded(small), SERVICE)


def test_a_scaled_copy_takes_the_place_of_the_large_one_and_files_of_the_same_pixels_become_one(tmp_path: Path) -> None:
    data = encoded(noisy(120, 80))
    files = {"a.png": data, "again.png": data + b"more", "small.png": encoded(noisy(40, 40))}
    pools = [built(files, tmp_path / "round", pixels=2400) for _ in range(2)]
    assert pools[0] == pools[1]
    assert len(pools[0].images) == 2
    assert {path.name for path in (tmp_path / "round" / "originals").iterdir()} == {i.id for i in pools[0].images}


@pytest.fixture
def drawn(make_world: Callable[..., World], tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """The pool that a round draws from one picture of 400 x 300 pixels, for a service with limits of its own."""
    (tmp_path / "photos").mkdir()
    noisy(400, 300).save(tmp_path / "photos" / "a.jpg", quality=10)
    made: list[Replicas] = []

    def draw(pixels: int, seen: PixelLimits | None = None, **limits: int) -> Pool:
        made.append(replicas := Replicas(make_world(**limits)))
        replicas.start()
        replicas.worlds[0].engine.limits = seen
        settings = EvolveSettings(pool=tmp_path / "photos", run=tmp_path / "run", variants=35, pixels=pixels)
        with replicas.workers() as workers:
            return draw_pool(RoundContext(1, settings, workers, Stages()))

    yield draw
    for replicas in made:
        replicas.stop_all()


@pytest.mark.parametrize(
    ("pixels", "limits", "size"),
    [
        (30_000, {}, (200, 150)),
        (120_000, {}, (400, 300)),
        (120_000, {"seen": PixelLimits(3136, 7500, 28)}, (100, 75)),
        (120_000, {"max_upload_bytes": 120_000}, (200, 150)),
    ],
    ids=["asked for", "small enough", "seen by the model", "taken by the service"],
)
def test_a_round_scales_down_to_what_is_asked_for_seen_by_the_model_and_taken_by_the_service(
    drawn: Callable[..., Pool], pixels: int, limits: dict[str, Any], size: tuple[int, int]
) -> None:
    pool = drawn(pixels, **limits)
    assert pool.open(pool.images[0].id).size == size
    loud = next(image.id for image in pool.images if image.kind == "white_noise")
    assert len(pool.bytes_of(loud)) <= limits.get("max_upload_bytes", SERVICE.max_bytes)
