"""`unibind kb sql --at PLACE`: queries over a published version where it is.

DuckDB reads the version's files through a file system that is registered with the connection, by their names
in the knowledge base, as `published://descriptions/category/part-00000.parquet`. No extension is
needed, and only what a query reads is transferred.

Cards of encoders and manifests of tables, which are small, are fetched first and compared with their SHA-256.
Of the tables only the size is compared: `unibind kb fetch` reads, and verifies, every byte.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from data.errors import KnowledgeBaseError, first_line
from kb_builder.browse.answer import QueryResult
from kb_builder.browse.query import connect_elsewhere, run_one
from kb_builder.browse.sources import (
    TABLES,
    VECTORS,
    ViewSource,
    lacking_columns,
    require_utf8,
    require_vectors,
)
from kb_builder.publish.place import Place
from kb_builder.publish.versions import Version, read_version
from kb_builder.publish.writer import Content
from kb_builder.store.cards import encoder_folders
from kb_builder.store.table import part_paths

_PROTOCOL = "published"


class _SharedFile:
    """A file that several threads of DuckDB read: each has a position of its own.

    DuckDB moves a file to a place and reads there, in two calls; no other thread may move it in between.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._size = file.size()
        self._of_thread = threading.local()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move this thread's position."""
        base = (0, self.tell(), self._size)[whence]
        self._of_thread.position = base + offset
        return base + offset

    def tell(self) -> int:
        """This thread's position."""
        return int(getattr(self._of_thread, "position", 0))

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes from this thread's position on, or all."""
        start = self.tell()
        left = max(0, self._size - start)
        data: bytes = self._file.read_at(left if count < 0 else min(count, left), start)
        self._of_thread.position = start + len(data)
        return data

    def close(self) -> None:
        """Close the file, for all threads."""
        self._file.close()


class PublishedFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The files of a version, to be read."""

    protocol = _PROTOCOL
    cachable = False  # by fsspec: each instance has a place of its own

    def __init__(self, place: Place, version: Version) -> None:
        super().__init__()
        self._place = place
        self._version = version

    def open(self, path: str, mode: str = "rb", **_options: Any) -> Any:
        """A file for DuckDB."""
        return _SharedFile(self.opened(path))

    def opened(self, path: str) -> Any:
        """A file of pyarrow. Raises KnowledgeBaseError where its object is missing or has another size."""
        content = self._content(path)
        where = f"{self._place.name}/{content.object} ({path})"
        try:
            file = self._place.open(content.object)
        except FileNotFoundError as error:
            raise KnowledgeBaseError(f"{where}: missing, though a version names it") from error
        if file.size() != content.bytes:
            raise KnowledgeBaseError(f"{where}: damaged, {file.size():,} bytes in place of {content.bytes:,}")
        return file

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """The size of a file. Raises FileNotFoundError."""
        return {"name": path, "size": self._content(path).bytes, "type": "file"}

    def glob(self, path: str, *_given: Any, **_options: Any) -> list[str]:
        """The file of this name, since DuckDB asks for every path as a pattern."""
        return [path] if self._name(path) in self._version.files else []

    def modified(self, path: str) -> datetime:
        """When a file was published: objects never change."""
        return datetime.fromisoformat(self._version.published_at).astimezone(UTC)

    def _content(self, path: str) -> Content:
        try:
            return self._version.files[self._name(path)]
        except KeyError as error:
            raise FileNotFoundError(path) from error

    def _name(self, path: str) -> str:
        return str(self._strip_protocol(path))


@contextmanager
def connect_published(place: Place, number: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views (kb_builder/browse/views.py) over a published version, by default the latest.

    Raises InputError where nothing is published or a query is wrong, KnowledgeBaseError for damaged objects.
    """
    version = read_version(place, number)
    files = PublishedFiles(place, version)
    with tempfile.TemporaryDirectory(prefix="unibind-") as folder:
        cards = Path(folder)
        _fetch_cards(place, version, cards)
        try:
            found = _sources(files, version, cards)
        except KnowledgeBaseError as error:  # of a card, as its writer has published it
            raise KnowledgeBaseError(str(error).replace(folder, place.name)) from error
        with connect_elsewhere(cards, found, files) as connection:
            yield connection


def sql_published(place: Place, query: str, number: int | None = None) -> QueryResult:
    """As `kb_builder.browse.query.sql`, over a published version."""
    require_utf8(query)
    with connect_published(place, number) as connection:
        return run_one(connection, query)


def _fetch_cards(place: Place, version: Version, folder: Path) -> None:
    """Write the JSON files of the embedding store into a folder that is laid out like the knowledge base."""
    for name, content in version.files.items():
        if name.startswith("embeddings/") and name.endswith(".json"):
            data = b"".join(place.pieces(content.object))
            if hashlib.sha256(data).hexdigest() != content.sha256:
                raise KnowledgeBaseError(
                    f"{place.name}/{content.object} ({name}): damaged; on the machine that published it,"
                    " `unibind kb publish --check` repairs it"
                )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def _sources(files: PublishedFiles, version: Version, cards: Path) -> tuple[ViewSource, ...]:
    """The sources of every view: as `kb_builder.browse.sources.sources`, of files that are elsewhere."""
    found = []
    for view, (pattern, schema) in TABLES.items():
        own = tuple(Path(name) for name in sorted(version.files) if _matches(name, pattern))
        lacking = lacking_columns({file: _footer(files, file) for file in own}, schema)
        found.append(
            ViewSource(view, Path(), pattern, own, schema, lacking=lacking, protocol=f"{_PROTOCOL}://")
        )
    serving = {encoder.role: encoder for encoder in encoder_folders(cards) if encoder.role}
    for view, (role, table) in VECTORS.items():
        encoder = serving.get(role)
        folder = Path("embeddings") / (encoder.folder if encoder else "-") / table
        own = tuple(folder / path.name for path in part_paths(cards / folder)) if encoder else ()
        dim = int(encoder.card["dim"]) if encoder else 1
        if own:
            require_vectors(own[0], _footer(files, own[0]), dim)
        found.append(ViewSource(view, folder, "*.parquet", own, dim=dim, protocol=f"{_PROTOCOL}://"))
    return tuple(found)


def _matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern, folder by folder."""
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return len(parts) == len(wanted) and all(map(fnmatch, parts, wanted))


def _footer(files: PublishedFiles, file: Path) -> pa.Schema:
    try:
        with files.opened(file.as_posix()) as opened:
            return pq.read_schema(opened)
    except pa.ArrowException as error:
        raise KnowledgeBaseError(f"{file}: damaged ({first_line(error)})") from error
