"""The images of a round: where they come from, which are drawn, their variants, their pixels."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.images.picture import Limits, decode
from tests.full_disk import small_files
from trainer.errors import DiskFull
from trainer.files import read_jsonl
from trainer.pool.build import Drawn, Sample, build
from trainer.pool.pool import Pool, content_id
from trainer.pool.sources import Entry, Sources

LIMITS = Limits(max_pixels=10_000, min_side=8, max_side=700, max_bytes=100_000)


def png(shade: int, side: int = 16) -> bytes:
    return saved(Image.new("RGB", (side, side), (shade, 255 - shade, 7)))


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def drawn(
    source: Path | Iterable[Entry],
    folder: Path,
    images: int = 100,
    variants: int = 0,
    seed: int = 0,
    most_unreadable: float = 0.5,
) -> tuple[Pool, Drawn]:
    entries = Sources(source, LIMITS.max_bytes) if isinstance(source, Path) else source
    return build(
        entries, folder, images=images, variants=variants, limits=LIMITS, pixels=LIMITS.max_pixels,
        most_unreadable=most_unreadable, draw_seed=seed,
        variant_seed=seed, advance=lambda count, note: None,
    )  # fmt: skip


def ids(pool: Pool) -> set[str]:
    return {image.id for image in pool.images}


PICTURES = {f"{n}.png": png(n) for n in range(6)}
IDS = {content_id(data) for data in PICTURES.values()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, (name, data) in enumerate(PICTURES.items()):
        file = tmp_path / "photos" / ("deeper" if number % 2 else "") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "photos"


def listed(photos: Path) -> Path:
    names = [str(path.relative_to(photos.parent)) for path in photos.rglob("*.png")]
    (photos.parent / "list.txt").write_text("\n".join(names) + "\n\n")
    return photos.parent / "list.txt"


def parquet(cells: list[object], file: Path, column: str = "image") -> Path:
    pq.write_table(pa.table({"id": list(range(len(cells))), column: cells}), file)
    return file


def shard(file: Path, pictures: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as tar:
        for name, data in pictures.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def two_shards(photos: Path) -> Path:
    halves = list(PICTURES.items())
    shard(photos.parent / "s-00.tar", {**dict(halves[:3]), "0.json": b"{}"})
    shard(photos.parent / "s-01.tar", dict(halves[3:]))
    return photos.parent / "s-{00..01}.tar"


def folder_of_shards(photos: Path) -> Path:
    (photos.parent / "data").mkdir()
    shard(photos.parent / "data" / "a.tar.gz", PICTURES, "w:gz")
    return photos.parent / "data"


SOURCES: dict[str, Callable[[Path], Path]] = {
    "a folder": lambda photos: photos,
    "a pattern": lambda photos: photos / "**" / "*.png",
    "alternatives": lambda photos: photos / "{deeper/,}{0..5}.png",
    "a list": listed,
    "Parquet with bytes": lambda photos: parquet([*PICTURES.values()], photos.parent / "p.parquet"),
    "Parquet with structs": lambda photos: parquet(
        [{"bytes": data, "path": name} for name, data in PICTURES.items()], photos.parent / "p.parquet"
    ),
    "Parquet with paths": lambda photos: parquet(
        [str(path.relative_to(photos.parent)) for path in photos.rglob("*.png")], photos.parent / "p.parquet", "path"
    ),
    "shards": two_shards,
    "a folder of shards": folder_of_shards,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_the_same_pool(kind: str, photos: Path, tmp_path: Path) -> None:
    source = SOURCES[kind](photos)
    pool, seen = drawn(source, tmp_path / "round")
    assert ids(pool) == IDS
    assert seen.originals == 6
    assert {pool.open(image.id).getpixel((3, 3)) for image in pool.images} == {(n, 255 - n, 7) for n in range(6)}


def test_the_order_of_the_entries_does_not_matter_but_the_seed_does(tmp_path: Path) -> None:
    entries = [Entry(f"{n}", lambda n=n: png(n)) for n in range(60)] * 2
    pools = [
        drawn(order, tmp_path / "round", images=10, variants=2, seed=seed)[0].images
        for order, seed in ((entries, 0), (entries[::-1], 0), (entries, 1))
    ]
    assert pools[0] == pools[1]
    assert {image.id for image in pools[0]} != {image.id for image in pools[2]}
    assert len(pools[0]) == 30


def test_a_sample_is_uniform() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        sample: Sample[int] = Sample(5, seed)
        for number in range(20):
            if sample.wants(str(number)):
                sample.put(str(number), number)
        counts[[number for _, number in sample]] += 1
    variance = 2000 * 0.25 * 0.75
    assert np.abs(counts - 500).max() < 4.5 * variance**0.5


def test_content_that_occurs_twice_is_taken_once(photos: Path, tmp_path: Path) -> None:
    (photos / "again.png").write_bytes(PICTURES["0.png"])
    pool, seen = drawn(photos, tmp_path / "round")
    assert (len(pool.images), seen.files) == (6, 7)


def test_unreadable_files_are_listed_and_counted_and_the_rest_is_taken(photos: Path, tmp_path: Path) -> None:
    broken = {
        "note.jpg": b"no picture", "torn.png": png(9, 64)[:60], "bomb.png": png(9, 101), "tiny.png": png(9, 4),
        "long.png": png(9) + bytes(LIMITS.max_bytes),
    }  # fmt: skip
    for name, data in broken.items():
        (photos / name).write_bytes(data)
    (photos / "gone.png").symlink_to(photos / "nowhere")
    pool, seen = drawn(photos, tmp_path / "round")
    assert ids(pool) == IDS
    rows = list(read_jsonl(tmp_path / "round" / "unreadable.jsonl"))
    assert {Path(row["file"]).name for row in rows} == {*broken, "gone.png"}
    assert seen.unreadable == 6
    assert all(row["problem"] for row in rows)


def beside_broken_ones(photos: Path) -> Path:
    for number in range(9):
        (photos / f"bad-{number}.png").write_bytes(b"%d" % number)
    return photos


BAD: dict[str, Callable[[Path], Path]] = {
    "a folder": beside_broken_ones,
    "Parquet": lambda photos: parquet([*PICTURES.values(), *[None] * 9], photos.parent / "p.parquet"),
    "a shard": lambda photos: shard(photos.parent / "s.tar", PICTURES | {f"bad-{n}.png": b"%d" % n for n in range(9)}),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_pool_of_which_more_than_the_stated_share_is_unreadable_is_refused(
    kind: str, photos: Path, tmp_path: Path
) -> None:
    source = BAD[kind](photos)
    with pytest.raises(
        ValueError, match=r"9 of the pool's 15 entries cannot be read: .* the first: .*--pool-unreadable"
    ):
        drawn(source, tmp_path / "round")
    assert not (tmp_path / "round" / "pool.jsonl").exists()
    assert ids(drawn(source, tmp_path / "round", most_unreadable=0.6)[0]) == IDS


def test_the_share_of_a_large_pool_is_that_of_the_entries_that_were_opened(tmp_path: Path) -> None:
    def gone() -> bytes:
        raise FileNotFoundError("gone")

    some = [Entry(f"gone {n}", gone) for n in range(20)]
    broken = [Entry(f"broken {n}", lambda n=n: b"no picture %d" % n) for n in range(990)]
    fine = [Entry(f"{n}", lambda n=n: png(5) + n.to_bytes(2)) for n in range(990)]
    _, seen = drawn([*some, *fine], tmp_path / "round", images=3)
    assert seen.unreadable_share == pytest.approx(20 / 1010, abs=1e-3)
    mixed = [entry for pair in zip(broken, fine, strict=True) for entry in pair]
    _, seen = drawn(mixed, tmp_path / "round", images=3, most_unreadable=1)
    assert seen.unreadable < 100
    assert 0.25 < seen.unreadable_share < 0.75


REFUSED: dict[str, tuple[bytes, str]] = {
    "too small": (png(9, 4), "smaller --min-image-side"),
    "too many pixels": (png(9, 101), "larger --max-image-pixels"),
    "too long a side": (saved(Image.new("RGB", (800, 9))), "larger --max-image-side"),
    "too long a file": (png(9) + bytes(LIMITS.max_bytes), "larger --max-upload-bytes"),
    "no picture": (b"no picture", "replace damaged files"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_the_advice_fits_the_most_frequent_reason(reason: str, tmp_path: Path) -> None:
    data, advice = REFUSED[reason]
    other = next(data for data, text in REFUSED.values() if text != advice)
    entries = [Entry(f"{n}.png", lambda n=n: data + bytes([n])) for n in range(5)]
    with pytest.raises(ValueError, match=f"no readable image in the pool: 6 of the pool's 6 entries.*{advice}"):
        drawn([Entry("other.png", lambda: other), *entries], tmp_path / "round")


def test_names_that_are_not_utf_8_are_told_with_escapes(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    with pytest.raises(ValueError, match=r"the first: .*caf\\xe9.png"):
        drawn(tmp_path / "list.txt", tmp_path / "round")


def test_a_torn_shard_gives_what_it_holds_and_is_listed(tmp_path: Path) -> None:
    file = shard(tmp_path / "s.tar", PICTURES)
    file.write_bytes(file.read_bytes()[: 2 * 1024 + 530])
    pool, seen = drawn(file, tmp_path / "round")
    assert ids(pool) == {content_id(PICTURES[name]) for name in ("0.png", "1.png")}
    assert seen.unreadable == 1


def test_a_torn_parquet_file_and_empty_cells_are_listed(tmp_path: Path) -> None:
    whole = parquet([*PICTURES.values(), None], tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(whole.read_bytes()[:-9])
    pool, seen = drawn(tmp_path / "*.parquet", tmp_path / "round")
    assert ids(pool) == IDS
    assert seen.unreadable == 2


def test_a_parquet_file_without_images_is_an_error_that_names_its_columns(tmp_path: Path) -> None:
    file = parquet([1.5], tmp_path / "a.parquet", "mos")
    with pytest.raises(ValueError, match=r"id, mos; name one with --pool-column"):
        drawn(file, tmp_path / "round")


def test_a_folder_without_images_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no readable image in the pool: 0 files"):
        drawn(tmp_path, tmp_path / "round")


def test_the_runs_own_folder_is_no_part_of_the_pool(photos: Path) -> None:
    (photos / "run").mkdir()
    (photos / "run" / "variant.png").write_bytes(png(99))
    for pool in (photos, photos / "**" / "*.png"):
        sources = Sources(pool, LIMITS.max_bytes, without=photos / "run")
        assert ids(drawn(sources, photos / "run" / "round-1")[0]) == IDS


def test_a_pool_inside_the_runs_folder_is_taken_as_named(photos: Path) -> None:
    for pool in (photos, photos / "*.png"):
        sources = Sources(pool, LIMITS.max_bytes, without=photos.parent)
        assert len(drawn(sources, photos.parent / "round-1")[0].images) > 0


def test_a_scan_that_was_killed_leaves_nothing_behind_the_next(tmp_path: Path) -> None:
    file = shard(tmp_path / "s.tar", PICTURES)

    def killed() -> Iterator[Entry]:
        yield from list(Sources(file, LIMITS.max_bytes))[:4]
        yield Entry("extra", lambda: png(200))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(killed(), tmp_path / "round")
    pool, _ = drawn(file, tmp_path / "round", images=3)
    assert {path.name for path in (tmp_path / "round" / "originals").iterdir()} == ids(pool)
    assert Pool.load(tmp_path / "round" / "pool.jsonl").images == pool.images


def test_a_copy_that_finds_the_disk_full_ends_the_scan_instead_of_being_listed(
    tmp_path: Path,
) -> None:
    with pytest.raises(DiskFull, match="make room"), small_files():
        drawn([Entry("a", lambda: png(1, 64) + bytes(8192))], tmp_path / "round")


def test_a_large_pool_takes_the_memory_of_what_is_drawn(tmp_path: Path) -> None:
    """200,000 different pictures: one PNG, each with other bytes after its end. Their ids alone would be 13 MB."""
    picture, file = png(5), tmp_path / "large.parquet"
    with pq.ParquetWriter(file, pa.schema([("image", pa.binary())])) as writer:
        for start in range(0, 200_000, 10_000):
            cells = [picture + number.to_bytes(8) for number in range(start, start + 10_000)]
            writer.write_table(pa.table({"image": cells}))
    tracemalloc.start()
    pool, seen = drawn(file, tmp_path / "round", images=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (seen.files, len(pool.images)) == (200_000, 20)
    assert peak < 3 * 2**20


def test_a_variant_that_many_ask_for_at_once_is_the_same_for_all(photos: Path, tmp_path: Path) -> None:
    pool, _ = drawn(photos, tmp_path / "round", variants=1)
    variant = next(image for image in pool.images if image.kind)
    asked = Barrier(8)

    def read(_: int) -> bytes:
        asked.wait()
        return pool.bytes_of(variant.id)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(read, range(8)))) == 1
    assert [path.name for path in Path(variant.path).parent.iterdir()] == [Path(variant.path).name]


def test_variants_are_made_when_they_are_needed_and_always_the_same(photos: Path, tmp_path: Path) -> None:
    pool, _ = drawn(photos, tmp_path / "round", variants=4)
    assert len(pool.images) == 6 * (1 + 4)
    assert not (tmp_path / "variants").exists()
    variants = [image.id for image in pool.images if image.kind]
    made: list[int] = []
    pool.make(pool.missing(variants[:5]), made.append)
    assert sum(made) == 5
    assert pool.missing(variants) == variants[5:]
    before = pool.bytes_of(variants[0])
    Path(pool.by_id[variants[0]].path).unlink()
    assert pool.bytes_of(variants[0]) == before
    assert len({pool.bytes_of(image) for image in variants}) > len(variants) // 2


def test_an_original_that_changes_under_a_round_is_named(photos: Path, tmp_path: Path) -> None:
    pool, _ = drawn(photos, tmp_path / "round")
    path = Path(pool.images[0].path)
    path.write_bytes(png(250))
    with pytest.raises(ValueError, match=f"{path.name} has changed"):
        pool.bytes_of(pool.images[0].id)


def turned() -> bytes:
    picture = Image.fromarray(np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture, "JPEG", exif=exif)


def transparent() -> bytes:
    return saved(Image.new("RGBA", (16, 16), (200, 0, 0, 60)))


def sixteen_bits() -> bytes:
    return saved(Image.fromarray(np.full((16, 16), 40_000, np.uint16)))


@pytest.mark.parametrize("data", [turned(), transparent(), sixteen_bits()], ids=["turned", "transparent", "16 bits"])
def test_torch_sees_the_pixels_that_the_engine_sees(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(data)
    pool, _ = drawn(file, tmp_path / "round")
    seen, plain = pool.open(pool.images[0].id), Image.open(file).convert("RGB")
    assert seen.mode == "RGB"
    assert seen.tobytes() == decode(data, LIMITS).tobytes()
    assert (seen.size, seen.tobytes()) != (plain.size, plain.tobytes())
