"""`unibind kb publish`: upload what a place does not hold yet, then make the new version visible.

Objects have the names of their content, so a publication that was killed is resumed by publishing again, and
two versions share what did not change. Nothing is ever deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data.errors import KnowledgeBaseError
from data.seals import check_always, sealed, sum_of
from data.show import visible
from kb_builder.publish.held import require_answers
from kb_builder.publish.place import Place
from kb_builder.publish.segments import open_snapshot
from kb_builder.publish.uploads import Uploads
from kb_builder.publish.versions import (
    PublishedLedger,
    Version,
    read_version,
    version_numbers,
    write_version,
)
from kb_builder.publish.writer import Content, Lease, hold, version_files
from kb_builder.store.table import MANIFEST, part_paths

_LEDGER = "ledger.sqlite"


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


def publish(
    kb: Path, place: Place, *, check: bool = False, say: Callable[[str], None] = lambda line: None
) -> Published:
    """Publish a knowledge base with its embedding store and its ledger. The caller holds the run's lock.

    `check`: read back what is there already, and replace what is damaged. `say` is told why it takes long.
    Raises InputError for a place that cannot be used, KnowledgeBaseError where the knowledge base is damaged,
    lacks answers that a run has sent there, or where another process is writing there. Either way whatever
    was published before is unchanged.
    """
    _require_tables(kb)
    # Whoever cannot write there is told before hours of uploading.
    with hold(place, kb, say) as lease:
        if lease.state.unfinished:
            require_answers(kb, place)
        return publish_version(kb, lease, check=check)


def publish_version(kb: Path, lease: Lease, *, check: bool = False) -> Published:
    """As `publish`, by one that holds the right to write to the place."""
    _require_tables(kb)
    lease.require()
    place = lease.place
    before = _latest(place)
    files = {path.relative_to(kb).as_posix(): _content_of(kb, path) for path in published_files(kb)}
    uploads = Uploads(place, check=check)
    uploads.add_files((content, kb / name) for name, content in files.items())
    ledger = _publish_ledger(kb, uploads)
    new = before is None or (before.files, before.ledger) != (files, ledger)
    number = _appear(lease, files, ledger) if new else lease.change(unfinished=()).version
    contents = {content.sha256: content.bytes for _, content in Version(number, "", files, ledger).contents()}
    return Published(
        place.name,
        number,
        new,
        len(contents),
        sum(contents.values()),
        uploads.count,
        uploads.bytes,
    )


def _require_tables(kb: Path) -> None:
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")


def _appear(lease: Lease, files: dict[str, Content], ledger: PublishedLedger | None) -> int:
    """Write the next version and let it appear; its number."""
    while True:
        number = max([lease.state.version, *version_files(lease.place)]) + 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if write_version(lease.place, Version(number, now, files, ledger)):
            break
        lease.change()  # raises if the other writer has the right to write
    old = lease.state
    never = {each for each in version_files(lease.place) if old.version < each < number}
    lease.change(version=number, void=tuple(sorted({*old.void, *never})), unfinished=())
    return number


def _latest(place: Place) -> Version | None:
    """The latest version, unless there is none or it is damaged."""
    try:
        return read_version(place) if version_numbers(place) else None
    except KnowledgeBaseError:
        return None


def _publish_ledger(kb: Path, uploads: Uploads) -> PublishedLedger | None:
    snapshot = open_snapshot(kb)
    if snapshot is None:
        return None
    with closing(snapshot):
        tables = {}
        for table in snapshot.tables:
            segments = []
            for segment, data in snapshot.segments(table):
                uploads.add(segment, data)
                segments.append(segment)
            tables[table] = tuple(segments)
        return PublishedLedger(snapshot.user_version, snapshot.schema, tables)


def published_files(kb: Path) -> Iterator[Path]:
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
