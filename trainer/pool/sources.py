"""The images that `--pool` names, as a stream in no particular order.

photos/                  a folder and those below it; Parquet files and tar shards in it too
'photos/**/*.jpg'        a pattern, in either case; {a,b} and {000..127} are alternatives
photos.txt               a list: one path a line, relative to the list
photos.parquet           a column of image bytes, of Hugging Face's {bytes, path}, or of paths
shards-{000..127}.tar    WebDataset shards, compressed or not
"""

from __future__ import annotations

import errno
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from glob import has_magic
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from service.extras import require
from service.files import existing, open_text, printable
from service.folders import SPECIAL, Names, fits, is_named, suffixes, walk
from service.images.picture import FORMATS
from trainer.errors import UserError
from trainer.files import named
from trainer.pool.unreadable import GONE

SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARQUET, LIST = ".parquet", ".txt"
_BATCH_ROWS = 64
_PATH_COLUMNS = {"path", "image", "image_path", "file", "file_name", "filename"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate image. `read` returns its bytes, or raises OSError."""

    name: str
    read: Callable[[], bytes]
    file: Path | None = None
    """Its path, if it is a plain file."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The entries of a pool. Of longer files only `max_bytes` + 1 bytes are read."""

    pool: Path
    max_bytes: int
    column: str | None = None
    """The column of Parquet files; None: it is found."""
    without: Path | None = None
    """A folder to skip: the run's own, if it lies in the pool. A pool inside it is read as named."""
    formats: tuple[str, ...] = FORMATS
    """Of the images in folders and shards."""
    follow_links: bool = False
    passed: Names = field(default_factory=Names)
    """The files of folders whose names are of another kind."""

    def __iter__(self) -> Iterator[Entry]:
        """Yields every entry; a broken shard or Parquet file, or a folder not entered, is one that cannot be read.

        Raises:
            UserError: the list cannot be read, a Parquet file has no column of images, or pyarrow is missing.
        """
        for path, problem in paths(self.pool, self.follow_links):
            if not self._is_own(path):
                yield from self._listed(path) if _ends(path, LIST) else self._of(path, problem)

    def _is_own(self, path: Path) -> bool:
        """True if the path is in the folder to skip."""
        if self.without is None or _inside(self.pool, self.without):
            return False
        return _inside(path, self.without)

    def _of(self, path: Path, problem: str | None = None) -> Iterator[Entry]:
        if problem:
            yield _broken(path, problem)
        elif path.is_dir():
            yield from self._folder(path)
        elif _ends(path, PARQUET):
            yield from self._parquet(path)
        elif _ends(path, *SHARDS):
            yield from self._shard(path)
        else:
            yield self._file(path)

    def _file(self, path: Path) -> Entry:
        return Entry(printable(path), partial(_read, path, self.max_bytes), path)

    def _folder(self, folder: Path) -> Iterator[Entry]:
        endings = (*suffixes(self.formats), *SHARDS, PARQUET)
        for path, problem in walk(folder, self.follow_links, lambda path: not self._is_own(path)):
            if self._is_own(path):
                continue
            if is_named(path, endings) or problem not in {None, SPECIAL}:
                yield from self._of(path, problem)
            else:
                self.passed.add(printable(path))

    def _listed(self, file: Path) -> Iterator[Entry]:
        with named(file, "the pool's list"):
            lines = open_text(file, errors="surrogateescape")
        with lines:
            for line in lines:
                if line.strip():
                    yield self._file(existing(file.parent / line.rstrip("\r\n")))

    def _shard(self, file: Path) -> Iterator[Entry]:
        try:
            with tarfile.open(file, "r|*") as shard:
                for member in shard:
                    shard.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps the whole shard's list
                    content = shard.extractfile(member) if member.isfile() else None
                    if content and is_named(Path(member.name), suffixes(self.formats)):
                        yield _loaded(f"{file}/{member.name}", content.read(self.max_bytes + 1))
        except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
            yield _broken(file, error)

    def _parquet(self, file: Path) -> Iterator[Entry]:
        arrow = _arrow()
        try:
            with arrow.parquet.ParquetFile(file) as table:
                column = self.column or _image_column(file, table.schema_arrow)
                rows = (cell for batch in table.iter_batches(_BATCH_ROWS, columns=[column]) for cell in batch.column(0))
                for row, cell in enumerate(rows):
                    yield self._cell(file, row, cell.as_py())
        except (OSError, arrow.ArrowException) as error:
            yield _broken(file, error)

    def _cell(self, file: Path, row: int, cell: Any) -> Entry:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, str):
            return self._file(existing(file.parent / cell))
        name = f"{file}#{row}"
        return _loaded(name, cell) if isinstance(cell, bytes) else _broken(name, OSError("the cell holds no image"))


def paths(pool: Path, follow_links: bool = False) -> Iterator[tuple[Path, str | None]]:
    """What a pool names: itself, its alternatives, or the matches of its patterns; the reason if one is not entered."""
    for name in [str(pool)] if pool.exists() else braceexpand(str(pool)):
        yield from [(Path(name), None)] if pool.exists() or not has_magic(name) else _matches(Path(name), follow_links)


def _matches(path: Path, follow_links: bool) -> Iterator[tuple[Path, str | None]]:
    """The files and folders that fit a pattern, and the folders on the way that are not entered, with the reason."""
    plain = next(place for place, part in enumerate(path.parts) if has_magic(part))
    root, pattern = Path(*path.parts[:plain]), path.parts[plain:]

    def fitting(found: Path, begins: bool = False) -> bool:
        return fits(found.relative_to(root).parts, pattern, begins=begins)

    for found, problem in walk(root, follow_links, lambda folder: fitting(folder, True) and not fitting(folder)):
        if fitting(found, begins=problem is not None):
            yield found, problem


def _inside(path: Path, folder: Path) -> bool:
    return (_resolved(path.parent) / path.name).is_relative_to(_resolved(folder))


@lru_cache(1024)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def _read(path: Path, max_bytes: int) -> bytes:
    if not path.is_file():  # reading a pipe, for example, would block
        raise FileNotFoundError(errno.ENOENT, GONE, str(path))
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def _loaded(name: str, data: bytes) -> Entry:
    return Entry(name, lambda: data)


def _broken(name: Path | str, error: Exception | str) -> Entry:
    def read() -> bytes:
        raise error if isinstance(error, OSError) else OSError(str(error))

    return Entry(printable(name), read)


def _ends(path: Path, *suffixes: str) -> bool:
    return path.name.lower().endswith(suffixes)


def _arrow() -> Any:
    require("parquet", "a pool in Parquet")
    import pyarrow
    import pyarrow.parquet

    return pyarrow


def _image_column(file: Path, schema: Any) -> str:
    """The first column with image bytes, or else with paths."""
    types = _arrow().types
    structs = [f.name for f in schema if types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    binary = [f.name for f in schema if types.is_binary(f.type) or types.is_large_binary(f.type)]
    texts = [
        f.name for f in schema if f.name in _PATH_COLUMNS and (types.is_string(f.type) or types.is_large_string(f.type))
    ]
    if not (found := structs + binary + texts):
        raise UserError(f"{file} has no column of images among {', '.join(schema.names)}; name one with --pool-column")
    return found[0]
