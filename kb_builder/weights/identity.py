"""Identity of a model: hashes of its files, cached for large ones; and a check that it fits into memory.

`<cache>/unibind/weights.json` holds the signature (data/reads.py) and hash of every large file; `<cache>` is
`$XDG_CACHE_HOME` or `~/.cache`. Without a writable cache they are hashed each time.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from data.errors import InputError
from data.files import hash_file, hash_json, signature, write_json
from data.reads import content, names, reading, remember

REMEMBERED_BYTES = 64 * 2**20  # smaller files are hashed each time
_POINTER, _POINTER_BYTES = (
    b"version https://git-lfs",
    1024,
)  # beginning of an LFS pointer, and its size at most
_PARTS = frozenset({".json", ".safetensors", ".jinja", ".model", ".txt"})
_GIB = 2**30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def hash_weights(folder: Path, *, besides: Collection[str] = ()) -> str:
    """SHA-256 (hex) of a folder's configuration, tokenizer and safetensors; its name does not count.

    `besides` names further files, which may replace the safetensors. Raises InputError if there are no
    weights.
    """
    files = {
        path.relative_to(folder).as_posix(): path
        for path in names(folder, "**/*")
        if (path.suffix in _PARTS or path.name in besides) and path.is_file()
    }
    if not any(name.endswith(".safetensors") or name in besides for name in files):
        if besides:
            raise InputError(f"{folder}: holds no *.safetensors and no {', no '.join(besides)}; put it there")
        raise InputError(
            f"{folder}: holds no *.safetensors; pickled weights (*.bin, *.pt) are not read, since a pickle "
            "may run any code; convert them, or name another model"
        )
    refuse_pointers(*files.values())
    return hash_json(hash_files(files))


def hash_model(folder: Path) -> str:
    """SHA-256 (hex) over every file that a model is loaded from, so without *.md and hidden files."""
    files = {path.relative_to(folder).as_posix(): path for path in names(folder, "**/*") if path.is_file()}
    return hash_json(
        hash_files(
            {
                name: path
                for name, path in files.items()
                if path.suffix.lower() != ".md" and not any(part.startswith(".") for part in name.split("/"))
            }
        )
    )


def refuse_pointers(*paths: Path) -> None:
    """Raise InputError for a Git LFS pointer, which a clone without LFS has in place of a large file."""
    for path in paths:
        if path.is_file() and path.stat().st_size <= _POINTER_BYTES:
            with path.open("rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise InputError(
                        f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in"
                        f" {path.parent}, or download the file"
                    )


def hash_files(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 (hex) of each file, from the cache for large files that are unchanged."""
    remembered = _remembered()
    before = dict(remembered)
    hashes = {name: _hash(path, remembered) for name, path in files.items()}
    if remembered != before:
        with suppress(OSError):
            write_json(_cache(), remembered)
    return hashes


def _hash(path: Path, remembered: dict[str, list[int | str]]) -> str:
    reading(path)
    now = signature(path)
    if now is None or now[0] < REMEMBERED_BYTES:
        return hash_file(path)
    key = str(path.resolve())
    known = remembered.get(key)
    if known is not None and len(known) == 5 and tuple(known[:4]) == now:
        remember(path, str(known[4]), now)
        return str(known[4])
    digest, settled = content(path)
    if digest is None:
        return hash_file(path)  # unreadable: raises the error
    remembered.pop(key, None)
    if settled is not None:
        remembered[key] = [*settled, digest]
    return digest


def cache_folder() -> Path:
    """The cache of this program: `unibind` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises FileNotFoundError where neither is known: the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unibind"
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "no home folder; set XDG_CACHE_HOME", "~/.cache") from None


def _cache() -> Path:
    return cache_folder() / "weights.json"


def _remembered() -> dict[str, list[int | str]]:
    try:
        value = json.loads(_cache().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def free_bytes() -> int | None:
    """Memory that this process may still allocate, in bytes; None if unknown (not Linux)."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
    try:  # the container's limit
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or no such file
        return free
    return min(free, max(0, limit - used))


def check_memory(name: str, needed: int) -> None:
    """Raise InputError if weights of `needed` bytes exceed the free memory."""
    free = free_bytes()
    if free is not None and needed > free:
        raise InputError(
            f"{name}: its weights take {needed / _GIB:.1f} GiB of memory, and {free / _GIB:.1f} GiB are free;"
            " end other programs, or name a smaller model"
        )
