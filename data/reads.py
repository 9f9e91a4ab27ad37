"""Tracks what stages read: each read is noted with a hash of the content, and can be checked for changes.

While a `Recorder` is active, every read through this module is noted: files, columns of a table, the names in
a folder, and files that were missing. A note `hold`s as long as reading again would give the same content.
pyarrow, DuckDB, SQLite and safetensors open files by themselves, so code that uses one of them calls
`reading(path)` first.

A file is identified by the SHA-256 of its bytes. Its signature (size, time of change, time of the inode's
change, inode) only saves hashing: a file with an unchanged signature is not hashed again. A program can set
the time of change, but not that of the inode, so a replacement of the same size and time is noticed. File
system clocks are coarse: a signature is kept only if it was old enough when the file was hashed
(`data.files.settled`).

Recorders see the whole process, including threads that a stage starts. If two stages run at once in one
process, each may note what the other read; that can make a stage run again, but never skip it wrongly.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from data.files import Signature, hash_file, hash_json, settled, signature
from data.seals import check, check_names, require_plain

Kind = Literal["file", "columns", "names"]

CHANGED_MEANWHILE = "changed while it was read"  # in place of a hash; equal to no hash
_BETWEEN = "\n"  # separates column names, which contain none

_T = TypeVar("_T")
_active: list[Recorder] = []
_lock = threading.Lock()
_hashes: dict[str, tuple[Signature, str]] = {}  # by path: the signature and SHA-256 of a file
_from_earlier: set[str] = set()  # paths whose hash was computed by an earlier process


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that was read.

    `detail`: the columns, or the glob pattern of the names. `digest`: None for a missing file. `signature`:
    None if it was too fresh to rely on, and for names.
    """

    kind: Kind
    path: str  # absolute, but not resolved: a way through `..` stays one
    detail: str
    digest: str | None
    signature: Signature | None = None

    def again(self) -> Note:
        """The same read repeated now; the digest is computed again unless the signature is unchanged."""
        path = Path(self.path)
        if self.kind == "names":
            return replace(self, digest=_digest_names(path, self.detail))
        if self.signature is not None and signature(path) == self.signature:
            return self
        if self.kind == "file":
            digest, seen = content(path)
        else:
            before = signature(path)
            digest, seen = _digest_columns(path, self.detail.split(_BETWEEN)), settled(path, before)
        return replace(self, digest=digest, signature=seen)


class Recorder:
    """Collects what was read since it was created; see `recorded`."""

    def __init__(self) -> None:
        self._files: dict[str, Signature | None] = {}
        self._others: dict[tuple[Kind, str, str], Note] = {}

    def notes(self, own: Callable[[str], bool] = lambda path: False) -> list[Note]:
        """The notes sorted by path, without paths for which `own` is true: a stage's own outputs.

        Files are hashed now. One that changed since it was first read gets `CHANGED_MEANWHILE` as its digest,
        which never holds.
        """
        with _lock:
            files, others = dict(self._files), list(self._others.values())
        notes = [note for note in others if not own(note.path)]
        for path, first in files.items():
            if not own(path):
                digest, seen = content(Path(path))
                same = signature(Path(path)) == first
                notes.append(Note("file", path, "", digest if same else CHANGED_MEANWHILE, seen))
        return sorted(notes, key=lambda note: (note.path, note.kind, note.detail))

    def add_file(self, path: str) -> None:
        """Note a file in its present state."""
        if path not in self._files:
            self._files[path] = signature(Path(path))

    def add(self, note: Note) -> None:
        """Add a note of columns or names, or of a file whose hash is known; the first note of each read
        counts."""
        self._others.setdefault((note.kind, note.path, note.detail), note)


@contextmanager
def recorded() -> Iterator[Recorder]:
    """A recorder that is active within the `with` block, in every thread of this process."""
    recorder = Recorder()
    with _lock:
        _active.append(recorder)
    try:
        yield recorder
    finally:
        with _lock:
            # By identity: another may have been started in between and still be at work.
            _active[:] = [each for each in _active if each is not recorder]


def reading(path: Path, *, checked: bool = True) -> Path:
    """Note that a file's content, or its absence, is used; returns the path, ready to be opened.

    Raises DamagedError where the file differs from its recorded checksum (data/seals.py). Pass
    `checked=False` for files whose reader verifies them itself, piece by piece.
    """
    if checked:
        check(path)
    else:
        require_plain(path)
    if _active:
        name = _absolute(path)
        with _lock:
            for recorder in _active:
                recorder.add_file(name)
    return path


def names(folder: Path, pattern: str) -> list[Path]:
    """`sorted(folder.glob(pattern))`, noted: a matching file that appears or disappears is a change.

    Raises DamagedError where a matching file of the folder's checksums is missing.
    """
    found = sorted(folder.glob(pattern))
    check_names(folder, pattern)
    _note(lambda: Note("names", _absolute(folder), pattern, _digest_found(folder, found)))
    return found


def columns(path: Path, wanted: Sequence[str]) -> pa.Table:
    """The wanted columns that a Parquet file has, noted: changes of other columns do not count.

    Raises what pyarrow raises, and DamagedError as `reading` does; a missing or damaged file is noted as
    well.
    """
    check(path)
    if not _active:
        return _columns(path, wanted)
    before = signature(path)
    try:
        table = _columns(path, wanted)
    except Exception:
        reading(path, checked=False)
        raise
    detail = _BETWEEN.join(wanted)
    _note(
        lambda: Note("columns", _absolute(path), detail, _digest_table(table, wanted), settled(path, before))
    )
    return table


def hashed(path: Path) -> str:
    """The SHA-256 (hex) of a file, noted. A file with a known signature is not read again."""
    before = signature(path)
    digest, seen = content(path)
    if digest is None:
        return hash_file(path)  # it cannot be read; the error says why
    found = digest if signature(path) == before else CHANGED_MEANWHILE
    _note(lambda: Note("file", _absolute(path), "", found, seen))
    return digest


def hash_of(path: Path) -> str:
    """`hashed`, without a note."""
    return content(path)[0] or hash_file(path)  # it cannot be read; the error says why


def replay(notes: Iterable[Note]) -> None:
    """Note earlier reads again, where their cached result is used instead of reading."""
    for note in notes:
        _note(lambda note=note: note)  # type: ignore[misc]


def adopt(notes: Iterable[Note]) -> None:
    """Note what another process read for this one; unchanged files need not be hashed here again."""
    for note in notes:
        if note.kind == "file" and note.digest != CHANGED_MEANWHILE:
            remember(Path(note.path), note.digest, note.signature)
        _note(lambda note=note: note)  # type: ignore[misc]


def hold(notes: Iterable[Note]) -> bool:
    """Whether reading everything again would give the same content."""
    return all(note.digest != CHANGED_MEANWHILE and note.again().digest == note.digest for note in notes)


def remembered(function: Callable[..., _T]) -> Callable[..., _T]:
    """`functools.cache` for functions that read files.

    A cached call notes the same reads as the first one; the cache is not used once those reads no longer
    hold.
    """
    kept: dict[tuple[Any, ...], tuple[_T, list[Note]]] = {}

    @wraps(function)
    def call(*arguments: Any) -> _T:
        known = kept.get(arguments)
        if known is None or not hold(known[1]):
            with recorded() as recorder:
                value = function(*arguments)
            known = kept[arguments] = value, recorder.notes()
        else:
            replay(known[1])
        return known[0]

    call.forget = kept.clear  # type: ignore[attr-defined]
    return call


def content(path: Path, *, rehash: bool = False) -> tuple[str | None, Signature | None]:
    """A file's SHA-256, and its signature if that is settled; (None, None) where it cannot be read.

    `rehash`: ignore a hash that an earlier process computed. A failing disk changes no signature.
    """
    name = _absolute(path)
    before = signature(path)
    known = _hashes.get(name)
    if known is not None and known[0] == before and not (rehash and name in _from_earlier):
        return known[1], before
    try:
        digest = hash_file(path)
    except (OSError, ValueError):  # not there, not readable, a pipe; a path with a NUL in it
        return None, None
    seen = settled(path, before)
    if seen is not None:
        _hashes[name] = seen, digest
        _from_earlier.discard(name)
    return digest, seen


def remember(path: Path, digest: str | None, seen: Signature | None) -> None:
    """Adopt the hash that an earlier process computed, so that an unchanged file is not hashed again."""
    if digest is not None and seen is not None:
        name = _absolute(path)
        if _hashes.get(name) != (seen, digest):
            _hashes[name] = seen, digest
            _from_earlier.add(name)


def _note(make: Callable[[], Note]) -> None:
    if _active:
        note = make()
        with _lock:
            for recorder in _active:
                recorder.add(note)


def _absolute(path: Path) -> str:
    return str(path) if path.is_absolute() else str(Path.cwd() / path)


def _columns(path: Path, wanted: Sequence[str]) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(wanted))


def _digest_columns(path: Path, wanted: Sequence[str]) -> str | None:
    try:
        return _digest_table(_columns(path, wanted), wanted)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return "damaged"


def _digest_table(table: pa.Table, wanted: Sequence[str]) -> str:
    """Hash type and values of each wanted column, independent of the division into row groups."""
    sums = {}
    for name in wanted:
        if name in table.column_names:
            column = table.select([name]).replace_schema_metadata(None).combine_chunks()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, column.schema) as stream:
                stream.write_table(column)
            sums[name] = hashlib.sha256(sink.getvalue()).hexdigest()
    return hash_json([len(table), sums])


def _digest_names(folder: Path, pattern: str) -> str:
    return _digest_found(folder, sorted(folder.glob(pattern)))


def _digest_found(folder: Path, found: Iterable[Path]) -> str:
    return hash_json([path.relative_to(folder).as_posix() for path in found])
