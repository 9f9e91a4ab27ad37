"""One door through which stages read: what was read is noted with its content, and can be asked for again.

While a `Recorder` is active, everything that is read through this module is noted: files, some columns of a
table, the names in a folder, and that a file was not there. A note `holds` as long as reading again would
give the same. pyarrow, DuckDB, SQLite and safetensors open files by themselves, so a reader that uses one of
them says `reading(path)` first.

A file is known by the SHA-256 of its bytes. Beside it stands a signature (size, time of change, time of the
inode's change, inode), for one purpose only: a file whose whole signature is the same is not hashed again. A
program can set the time of change, but not that of the inode, so a file replaced by one of the same size and
time is noticed. Clocks of file systems are coarse: a signature counts only where it was settled for a while
when the file was hashed.

Recorders hear the whole process: threads that a stage starts are heard as well. Where two stages run at once
in one process, each may note what the other read; that can make a stage run again, never be passed over.
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

CHANGED_MEANWHILE = "changed while it was read"  # stands where a hash would; never the hash of anything
_BETWEEN = "\n"  # between column names, which hold none

_T = TypeVar("_T")
_active: list[Recorder] = []
_lock = threading.Lock()
_hashes: dict[str, tuple[Signature, str]] = {}  # what is known of files by their signatures
_taken_over: set[str] = set()  # of these, what an earlier process found


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that was read.

    `detail` names the columns, or the pattern of the names. `digest` is None for a file that was not there;
    `signature` is None where it was not settled, and for names.
    """

    kind: Kind
    path: str  # absolute, but not resolved: a way through `..` stays one
    detail: str
    digest: str | None
    signature: Signature | None = None

    def again(self) -> Note:
        """The same thing as it is now; its digest is taken anew unless its whole signature is the same."""
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
    """What was read since it was made; see `recorded`."""

    def __init__(self) -> None:
        self._files: dict[str, Signature | None] = {}
        self._others: dict[tuple[Kind, str, str], Note] = {}

    def notes(self, own: Callable[[str], bool] = lambda path: False) -> list[Note]:
        """The notes in the order of their paths, but of what is a stage's `own`: what it writes itself.

        Files are hashed now. One that is no longer what it was when it was first read gets a digest that
        never holds.
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
        """Note a file, as it is now."""
        if path not in self._files:
            self._files[path] = signature(Path(path))

    def add(self, note: Note) -> None:
        """Note something else, or a file whose hash is known; the first note of a thing counts."""
        self._others.setdefault((note.kind, note.path, note.detail), note)


@contextmanager
def recorded() -> Iterator[Recorder]:
    """A recorder that is active inside the `with` block, in every thread of this process."""
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
    """Note that the content of a file, or its absence, is being used; returns the path, to be opened.

    Raises DamagedError where its maker's checksum (data/seals.py) says that this is not what was written; not
    `checked` are files that their reader checks himself, piece by piece.
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
    """`sorted(folder.glob(pattern))`, noted: another file that fits, or one less, is a change.

    Raises DamagedError where a file is gone that was written, by the checksums of the folder.
    """
    found = sorted(folder.glob(pattern))
    check_names(folder, pattern)
    _note(lambda: Note("names", _absolute(folder), pattern, _digest_found(folder, found)))
    return found


def columns(path: Path, wanted: Sequence[str]) -> pa.Table:
    """Those of the columns that a Parquet file has, noted: a change of other columns is none.

    Raises what pyarrow raises, and DamagedError as `reading` does; that the file is missing or damaged is
    noted as well.
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
    """The SHA-256 (hex) of a file, noted. A file whose whole signature is known is not read again."""
    before = signature(path)
    digest, seen = content(path)
    if digest is None:
        return hash_file(path)  # it cannot be read; the error says why
    found = digest if signature(path) == before else CHANGED_MEANWHILE
    _note(lambda: Note("file", _absolute(path), "", found, seen))
    return digest


def replay(notes: Iterable[Note]) -> None:
    """Note again what was read earlier, for who uses what was made of it."""
    for note in notes:
        _note(lambda note=note: note)  # type: ignore[misc]


def hold(notes: Iterable[Note]) -> bool:
    """Whether reading again would give the same, note by note."""
    return all(note.digest != CHANGED_MEANWHILE and note.again().digest == note.digest for note in notes)


def remembered(function: Callable[..., _T]) -> Callable[..., _T]:
    """`functools.cache` for what is read from files.

    A call that is answered from memory notes the same reads as the first one, and is not answered from memory
    where they no longer hold.
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


def content(path: Path, *, anew: bool = False) -> tuple[str | None, Signature | None]:
    """A file's SHA-256 and its signature where that was settled; (None, None) where it cannot be read.

    `anew`: what an earlier process found of it does not count. A disk that fails changes no signature.
    """
    name = _absolute(path)
    before = signature(path)
    known = _hashes.get(name)
    if known is not None and known[0] == before and not (anew and name in _taken_over):
        return known[1], before
    if not path.is_file():  # a pipe would be waited for
        return None, None
    try:
        digest = hash_file(path)
    except OSError:
        return None, None
    seen = settled(path, before)
    if seen is not None:
        _hashes[name] = seen, digest
        _taken_over.discard(name)
    return digest, seen


def remember(path: Path, digest: str | None, seen: Signature | None) -> None:
    """Take over what an earlier process found of a file, so that it is not hashed again while that holds."""
    if digest is not None and seen is not None:
        name = _absolute(path)
        if _hashes.get(name) != (seen, digest):
            _hashes[name] = seen, digest
            _taken_over.add(name)


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
    """Of each wanted column its type and values, whatever the file's own division into row groups."""
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
