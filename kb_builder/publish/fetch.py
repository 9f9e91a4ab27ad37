"""`unibind kb fetch`: a published version as a folder on this machine, every byte compared with its SHA-256.

What has arrived is kept in a hidden folder beside the target, so fetching again continues. The target appears
when all of it is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from data.errors import InputError, KnowledgeBaseError
from data.files import atomic_path, hash_file
from data.lock import write_lock
from data.seals import SEAL, seal
from data.show import visible
from kb_builder.ask.ledger_file import connect_to_read, sqlite_errors
from kb_builder.publish.place import Place
from kb_builder.publish.segments import restore_ledger
from kb_builder.publish.versions import PublishedLedger, read_newest, read_version
from kb_builder.publish.writer import Content

_AT_ONCE = 8
_LEDGER = "ledger.sqlite"


@dataclass(frozen=True)
class FetchedVersion:
    """What was fetched."""

    folder: Path
    place: str
    version: int  # of an unfinished run, the one before
    unfinished: bool  # what a run has sent that has not ended
    files: int
    bytes: int
    requests: int  # in the ledger
    newest: datetime | None  # when the last of them ended

    def __str__(self) -> str:
        what = f"version {self.version} of {self.place}"
        if self.unfinished:
            after = f"after version {self.version}" if self.version else "before any version"
            what = f"what a run that has not ended has sent to {self.place}, {after}"
        line = (
            f"{self.folder}: {what}, {self.files:,} files, {self.bytes / 1e6:,.1f} MB, and a ledger of"
            f" {self.requests:,} requests"
        )
        if self.newest is not None:
            line += f", the newest of {self.newest:%Y-%m-%d %H:%M:%S} UTC"
        return visible(f"{line}; `unibind run` continues it" if self.unfinished else line)


def fetch(place: Place, target: Path, number: int | None = None) -> FetchedVersion:
    """Fetch a version, by default what is newest, into the new folder `target`.

    What is newest is the latest version, or what a run has sent since that has not ended. Raises InputError
    where `target` exists or nothing is published, and KnowledgeBaseError for an object that is missing or
    damaged.
    """
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target} already exists; name a new folder")
    version, unfinished = read_newest(place) if number is None else (read_version(place, number), False)
    scratch = target.parent / f".{target.name}.fetch"
    folder, segments = scratch / "kb", scratch / "segments"
    with write_lock(scratch / "fetch.lock"):
        wanted = {folder / name: content for name, content in version.files.items()}
        ledger, newest = version.ledger, None
        tables = _segment_files(ledger, segments) if ledger else {}
        for files in tables.values():
            wanted |= files
        _remove_others(folder, wanted)
        _download_all(place, wanted)
        if ledger:
            path = folder / _LEDGER
            path.unlink(missing_ok=True)
            with atomic_path(path) as temporary:
                restore_ledger(temporary, ledger.user_version, ledger.schema, tables.items())
            newest = _newest(path)
            if (folder / SEAL).is_file():
                seal(folder, [path], _LEDGER)
        folder.mkdir(parents=True, exist_ok=True)
        folder.replace(target)
    shutil.rmtree(scratch, ignore_errors=True)
    requests = sum(each.rows for each in ledger.tables.get("entries", ())) if ledger else 0
    size = sum(content.bytes for content in version.files.values())
    return FetchedVersion(
        target, place.name, version.number, unfinished, len(version.files), size, requests, newest
    )


def _newest(ledger: Path) -> datetime | None:
    """When the last request of a ledger ended."""
    with sqlite_errors(ledger), closing(connect_to_read(ledger)) as connection:
        (found,) = connection.execute("SELECT max(created_at) FROM entries").fetchone()
    return None if found is None else datetime.fromtimestamp(found / 1e6, UTC)


def _segment_files(ledger: PublishedLedger, folder: Path) -> dict[str, dict[Path, Content]]:
    """The segments of each table, by the files that they are fetched to, in order."""
    return {
        table: {folder / f"{number}-{at:08d}.parquet": each for at, each in enumerate(segments)}
        for number, (table, segments) in enumerate(ledger.tables.items())
    }


def _remove_others(folder: Path, wanted: dict[Path, Content]) -> None:
    """Remove what an earlier attempt, perhaps at another version, has left and this one does not want."""
    for path in [*folder.rglob("*")]:
        if path.is_file() and path not in wanted:
            path.unlink()


def _download_all(place: Place, wanted: dict[Path, Content]) -> None:
    total = sum(content.bytes for content in wanted.values())
    with (
        tqdm(total=total, desc="fetch", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        try:
            for count in pool.map(lambda each: _download(place, *each), wanted.items()):
                bar.update(count)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _download(place: Place, path: Path, content: Content) -> int:
    """Fetch an object, unless it is there from an earlier attempt; its bytes."""
    if path.is_file() and path.stat().st_size == content.bytes and hash_file(path) == content.sha256:
        return content.bytes
    found = hashlib.sha256()
    where = f"{place.name}/{content.object} ({path.name})"
    repair = "on the machine that published it, `unibind kb publish --check` repairs it"
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:
                for piece in place.pieces(content.object):
                    found.update(piece)
                    file.write(piece)
        except FileNotFoundError as error:
            raise KnowledgeBaseError(f"{where}: missing, though a version names it; {repair}") from error
        if found.hexdigest() != content.sha256:
            raise KnowledgeBaseError(f"{where}: damaged, its SHA-256 is not that of its version; {repair}")
    return content.bytes
