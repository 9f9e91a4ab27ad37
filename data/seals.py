"""Checksums of finished files: written when a stage is complete, verified whenever a file is read.

    <folder>/unibind-checksums.json    format, files: {name: {bytes, crc32, sha256, maker}}; sha256

A knowledge base has such a list for its files, and a run for its other files, with names relative to the
folder, so that a copied folder can be verified alone. A stage removes the entries of its files before it
writes them (`unseal`) and adds new ones when all are complete (`seal`). So a file with an entry is as it was
written, or it is damaged; a file without one is being written, or was written by an earlier version.

`check` is called wherever a file is opened through data/reads.py. It compares SHA-256, for large files
CRC-32, which is ten times as fast; `kb verify` always compares SHA-256. A file is checked once per process,
as long as its signature stays the same. Shards of vectors are checked piece by piece by the store that reads
them (kb_builder/store/shards.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from data.errors import DamagedError, first_line
from data.files import Signature, hash_json, settled, signature, write_json
from data.special_files import is_irregular

try:
    from isal.isal_zlib import crc32
except ImportError:  # no build for this platform; zlib computes the same sum several times slower
    from zlib import crc32

SEAL = "unibind-checksums.json"
FORMAT = 1
HINT = "`unibind run`"
FORBIDDEN = "this user may not read it (permission denied); change its mode or its owner"
_ENDINGS = frozenset({".parquet", ".json", ".safetensors"})  # files that results are computed from
_LEVELS = 4  # from <kb>/embeddings/<encoder>/<table>/manifest.json up to <kb>
_LARGE = 2**16  # bytes; from this size on readers compare CRC-32
_PIECE = 2**20

_lock = threading.Lock()
_loaded: dict[Path, tuple[Signature | None, dict[str, Sum]]] = {}
_held: dict[Path, tuple[Signature, Sum]] = {}  # files already verified in this process


@dataclass(frozen=True, slots=True)
class Sum:
    """Size and checksums of a file's content."""

    bytes: int
    crc32: int
    sha256: str
    maker: str = ""  # the stage or command that wrote it


def seal(folder: Path, paths: Iterable[Path], maker: str) -> None:
    """Record the checksums of the files that `maker` has completed, replacing its earlier entries.

    All of them are in `folder`. The caller holds the folder's write lock.
    """
    with _lock:
        known = _read_or_none(folder) or {}
        fresh = {name: each for name, each in known.items() if each.maker != maker}
        for path in paths:
            if path.is_file():
                fresh[path.relative_to(folder).as_posix()] = replace(sum_of(path), maker=maker)
        if fresh != known or not (folder / SEAL).is_file():
            _write(folder, fresh)


def unseal(folder: Path, maker: str | None = None, *, below: str | None = None) -> None:
    """Remove the entries of a maker, or of all files below a folder, before these files are written."""
    with _lock:
        known = _read_or_none(folder)
        if known is None:
            if os.path.lexists(folder / SEAL):  # the list itself is damaged
                _remove(folder / SEAL)
            return
        kept = {
            name: each
            for name, each in known.items()
            if each.maker != maker and not (below is not None and name.startswith(f"{below}/"))
        }
        if len(kept) < len(known):
            _write(folder, kept)


def discard(folder: Path) -> None:
    """Remove the checksum list of a folder."""
    with _lock:
        if os.path.lexists(folder / SEAL):
            _remove(folder / SEAL)


def sealed(folder: Path) -> Mapping[str, Sum] | None:
    """The checksums of a folder's files by relative name, or None where there is no list (yet).

    Raises DamagedError where the list itself is damaged.
    """
    path = folder / SEAL
    seen = signature(path)
    if seen is None and not os.path.lexists(path):
        return None
    known = _loaded.get(path)
    if known is None or known[0] != seen:
        known = seen, _read(path)
        if settled(path, seen) is not None:
            _loaded[path] = known
    return known[1]


def check(path: Path) -> None:
    """Raise DamagedError for a file that is missing or differs from its entry. One without an entry
    passes."""
    if path.suffix in _ENDINGS and path.name != SEAL:
        check_always(path)


def check_always(path: Path) -> None:
    """`check` for files of any ending."""
    path = Path(os.path.abspath(path))  # noqa: PTH100  (links are no other files)
    expected = _line(path)
    if expected is None:
        require_plain(path)
        return
    wrong = _differs(path, expected)
    if wrong == FORBIDDEN:
        raise DamagedError(path, wrong)
    # A writer removes the entry before it replaces the file.
    if wrong is not None and _line(path) == expected:
        raise DamagedError(path, f"{wrong}; {'delete it and ' if os.path.lexists(path) else ''}run {HINT}")


def require_plain(path: Path) -> None:
    """Raise DamagedError for a folder or special file in place of a file: opening a pipe would block.

    Also for a file without read permission, whose error from a library would look like damage.
    """
    if is_irregular(path):
        raise DamagedError(path, f"not a regular file; delete it and run {HINT}")
    with suppress(OSError):
        if path.exists() and not os.access(path, os.R_OK):
            raise DamagedError(path, FORBIDDEN)


def check_names(folder: Path, pattern: str) -> None:
    """Raise DamagedError where a file that matches `pattern` has an entry, but is missing."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100
    for base in (folder, *list(folder.parents)[: _LEVELS - 1]):
        prefix = folder.relative_to(base).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        for name in sealed(base) or ():
            fits = name.startswith(prefix) and "/" not in name.removeprefix(prefix)
            if fits and fnmatch(name.removeprefix(prefix), pattern) and not os.path.lexists(base / name):
                check(base / name)


def is_sealed(path: Path) -> bool:
    """Whether a file has an entry, whether it exists or not."""
    return _line(Path(os.path.abspath(path))) is not None  # noqa: PTH100


def sum_of(path: Path) -> Sum:
    """Size and checksums of a file. Raises OSError."""
    sums, crc, size = hashlib.sha256(), 0, 0
    for piece in _pieces(path):
        sums.update(piece)
        crc = crc32(piece, crc)
        size += len(piece)
    return Sum(size, crc, sums.hexdigest())


def differs(path: Path, expected: Sum) -> str | None:
    """How a file differs from its entry, every byte compared; None where it does not."""
    return _differs(path, expected, wholly=True)


def _differs(path: Path, expected: Sum, *, wholly: bool = False) -> str | None:
    try:
        found = path.stat()
    except OSError:
        return "missing, though it was written"
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    before = signature(path)
    if not wholly and before is not None and _held.get(path) == (before, expected):
        return None
    if found.st_size != expected.bytes:
        return f"damaged: {found.st_size:,} bytes, {expected.bytes:,} were written"
    try:
        if wholly or expected.bytes < _LARGE:
            same = sum_of(path).sha256 == expected.sha256
        else:
            crc = 0
            for piece in _pieces(path):
                crc = crc32(piece, crc)
            same = crc == expected.crc32
    except PermissionError:
        return FORBIDDEN
    except OSError as error:
        return f"unreadable ({first_line(error)})"
    if not same:
        return "damaged: its checksum is not that of what was written"
    if (seen := settled(path, before)) is not None:
        _held[path] = seen, expected
    return None


def _pieces(path: Path) -> Iterator[memoryview]:
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield view[:count]


def _line(path: Path) -> Sum | None:
    for folder in list(path.parents)[:_LEVELS]:
        lines = sealed(folder)
        if lines is not None and (expected := lines.get(path.relative_to(folder).as_posix())) is not None:
            return expected
    return None


def _read(path: Path) -> dict[str, Sum]:
    try:
        if is_irregular(path):
            raise ValueError("not a regular file")
        value = json.loads(path.read_text(encoding="utf-8"))
        claimed = value.pop("sha256")
        if hash_json(value) != claimed or value["format"] != FORMAT:
            raise ValueError("its own checksum does not match its content")
        return {str(name): Sum(**each) for name, each in value["files"].items()}
    except PermissionError as error:
        raise DamagedError(path, FORBIDDEN) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(path, f"damaged ({first_line(error)}); run {HINT}") from error


def _read_or_none(folder: Path) -> dict[str, Sum] | None:
    with suppress(DamagedError):
        return dict(sealed(folder) or {}) if os.path.lexists(folder / SEAL) else None
    return None


def _remove(path: Path) -> None:
    """Remove an unreadable list, also where a folder or a special file has its name."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.was-a-folder"))
    else:
        path.unlink()
    _loaded.pop(path, None)


def _write(folder: Path, lines: Mapping[str, Sum]) -> None:
    value: dict[str, Any] = {"format": FORMAT, "files": {name: asdict(lines[name]) for name in sorted(lines)}}
    if os.path.lexists(folder / SEAL) and not (folder / SEAL).is_file():
        _remove(folder / SEAL)
    write_json(folder / SEAL, {**value, "sha256": hash_json(value)})
    _loaded.pop(folder / SEAL, None)
