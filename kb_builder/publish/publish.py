"""`unibind kb publish`: upload what a place does not hold yet, then make the new version visible.

Objects have the names of their content, so a publication that was killed is resumed by publishing again, and
two versions share what did not change. Nothing is ever deleted.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from data.errors import InputError, KnowledgeBaseError
from data.seals import check_always, sealed, sum_of
from data.show import visible
from kb_builder.publish.place import PIECE, Place
from kb_builder.publish.segments import LedgerSnapshot, open_snapshot, write_segment
from kb_builder.publish.versions import (
    Content,
    PublishedLedger,
    Segment,
    Version,
    read_version,
    version_numbers,
    write_version,
)
from kb_builder.store.table import MANIFEST, part_paths

_AT_ONCE = 8  # uploads
_LEDGER = "ledger.sqlite"
_MARK = "unibind.json"
_MARK_CONTENT = b'{"what": "knowledge bases published by unibind kb publish", "format": 1}\n'


@dataclass(frozen=True)
class Published:
    """What a publication did."""

    place: str
    version: int
    new: bool  # False: this knowledge base is the latest version already
    files: int
    bytes: int  # of the version
    uploaded: int  # objects
    uploaded_bytes: int

    def __str__(self) -> str:
        whole = f"{self.files:,} objects, {self.bytes / 1e6:,.1f} MB"
        sent = f"{self.uploaded:,} uploaded now ({self.uploaded_bytes / 1e6:,.1f} MB)"
        if not self.new:
            return f"{visible(self.place)}: is version {self.version} already ({whole}); {sent}"
        return f"{visible(self.place)}: version {self.version} published ({whole}; {sent})"


def publish(kb: Path, place: Place, *, check: bool = False) -> Published:
    """Publish a knowledge base with its embedding store and its ledger. The caller holds the run's lock.

    `check`: read back what is there already, and replace what is damaged. Raises InputError for a place that
    cannot be used, KnowledgeBaseError where the knowledge base is damaged or another process published the
    same version first. Either way whatever was published before is unchanged.
    """
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    # Seen by whoever cannot write here, before hours of uploading.
    if place.put_new(_MARK, _MARK_CONTENT) and place.put_new(_MARK, _MARK_CONTENT):
        raise InputError(
            f"{place.name}: this server ignores conditional requests (If-None-Match), so it cannot tell two"
            " writers apart; publish to another"
        )
    last, before = _latest(place)
    files = {path.relative_to(kb).as_posix(): _content_of(kb, path) for path in _files(kb)}
    uploads = _Uploads(place, check=check)
    uploads.add((content, kb / name) for name, content in files.items())
    ledger = _publish_ledger(kb, uploads)
    version = Version(
        last + 1,
        datetime.now(UTC).isoformat(timespec="seconds"),
        files,
        ledger,
    )
    new = before is None or (before.files, before.ledger) != (version.files, version.ledger)
    if new and not write_version(place, version):
        raise KnowledgeBaseError(
            f"{place.name}: another process has published version {version.number} meanwhile; it is"
            " unchanged, and what was uploaded now is kept: publish again to make the next version"
        )
    contents = {content.sha256: content.bytes for _, content in version.contents()}
    return Published(
        place.name,
        version.number if new else last,
        new,
        len(contents),
        sum(contents.values()),
        uploads.count,
        uploads.bytes,
    )


def _latest(place: Place) -> tuple[int, Version | None]:
    """The number of the latest version, 0 if there is none, and that version unless it is damaged."""
    numbers = version_numbers(place)
    if not numbers:
        return 0, None
    try:
        return numbers[-1], read_version(place)
    except KnowledgeBaseError:
        return numbers[-1], None


class _Uploads:
    """Uploads what is not there, each content once."""

    def __init__(self, place: Place, *, check: bool) -> None:
        self._place = place
        self._check = check
        self._there = place.listed("objects")
        self._done: set[str] = set()
        self.count = self.bytes = 0

    def add(self, given: Iterable[tuple[Content, Path]]) -> None:
        """Upload contents from files that hold them, several at once."""
        wanted = {content.sha256: (content, path) for content, path in given}
        missing = [each for each in wanted.values() if each[0].sha256 not in self._done]
        self._done |= wanted.keys()
        total = sum(content.bytes for content, _ in missing)
        with (
            tqdm(total=total, desc="publish", unit="B", unit_scale=True, disable=None) as bar,
            ThreadPoolExecutor(_AT_ONCE) as pool,
        ):
            try:
                for content, sent in pool.map(self._upload, missing):
                    self.count += sent
                    self.bytes += sent * content.bytes
                    bar.update(content.bytes)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _upload(self, given: tuple[Content, Path]) -> tuple[Content, bool]:
        content, path = given
        if self._there.get(content.object) == content.bytes and not (self._check and self._differs(content)):
            return content, False
        self._place.put(content.object, _checked(path, content))
        return content, True

    def _differs(self, content: Content) -> bool:
        found = hashlib.sha256()
        for piece in self._place.pieces(content.object):
            found.update(piece)
        return found.hexdigest() != content.sha256


def _publish_ledger(kb: Path, uploads: _Uploads) -> PublishedLedger | None:
    snapshot = open_snapshot(kb)
    if snapshot is None:
        return None
    with closing(snapshot), tempfile.TemporaryDirectory(dir=kb, prefix=".publish.") as scratch:
        tables = {name: tuple(_segments(snapshot, name, uploads, Path(scratch))) for name in snapshot.tables}
        return PublishedLedger(snapshot.user_version, snapshot.schema, tables)


def _segments(snapshot: LedgerSnapshot, table: str, uploads: _Uploads, scratch: Path) -> Iterator[Segment]:
    for rows in snapshot.segments(table):
        path = scratch / "segment.parquet"
        write_segment(rows, path)
        found = sum_of(path)
        segment = Segment(found.bytes, found.sha256, len(rows))
        uploads.add([(segment, path)])
        yield segment


def _files(kb: Path) -> Iterator[Path]:
    """The files of a knowledge base but its ledger, locks and unfinished vectors."""
    parts: dict[Path, set[Path]] = {}
    for path in sorted(kb.rglob("*")):
        name = path.relative_to(kb)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or not path.is_file() or path.suffix == ".lock" or name.name.startswith(_LEDGER):
            continue
        if name.parts[0] == "embeddings" and len(name.parts) == 4 and path.name != MANIFEST:
            if path.parent not in parts:
                parts[path.parent] = set(part_paths(path.parent))
            if path not in parts[path.parent]:
                continue
        yield path


def _content_of(kb: Path, path: Path) -> Content:
    """A file's content. Raises DamagedError where it is not what was written."""
    check_always(path)
    known = (sealed(kb) or {}).get(path.relative_to(kb).as_posix()) or sum_of(path)
    return Content(known.bytes, known.sha256)


def _checked(path: Path, content: Content) -> Iterator[bytes]:
    """The pieces of a file; the last one only if all are the content."""
    found, last = hashlib.sha256(), b""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            if last:
                yield last
            found.update(piece)
            last = piece
    if found.hexdigest() != content.sha256:
        raise KnowledgeBaseError(f"{path}: changed while it was published; publish again")
    yield last
