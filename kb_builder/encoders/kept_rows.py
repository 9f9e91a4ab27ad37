"""A matrix of vectors kept in the user's cache folder, so that it is computed once on a machine.

    <cache>/unibind/vectors/<key>.f4    SHA-256 (32 bytes) of all that follows and of the key; float32[N, D]

The key is a hash of all that decides the bits. A file that is missing, cut off, changed or of another key is
made again; any of them can be deleted at any time. Without a writable cache folder the matrix is computed
each time, which is said in one line.
"""

from __future__ import annotations

import hashlib
import math
import platform
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.files import atomic_path, hash_file, hash_json
from data.show import visible
from data.special_files import open_regular
from kb_builder.encoders.base import Floats
from kb_builder.weights.identity import cache_folder

KEPT = 8  # files; of more, those written first are deleted
_SUM_BYTES = 32
# Installed packages that compute texts' vectors: another version may give other last bits.
_PACKAGES = ("torch", "tokenizers", "transformers", "sentence-transformers", "onnxruntime", "numpy")
_CPU_INFO = Path("/proc/cpuinfo")


def kept_rows(what: Any, shape: tuple[int, int], make: Callable[[], Floats], *, words: str) -> Floats:
    """`make()`, float32 of that shape; or what it gave before for the same `what` in this environment.

    `what` (JSON) states all that decides the vectors, besides the code of the encoders, the versions of the
    packages that run them, the processor and the GPU, which are added here. `words` tell the user what is
    made, if it has to be.
    """
    key = hash_json([what, shape, _environment()])
    found = _read(key, shape)
    if found is not None:
        return found
    print(f"note: {words}, once on this machine", file=sys.stderr, flush=True)
    made = make()
    try:
        _write(key, made)
    except OSError as error:
        print(
            f"note: {visible(error.filename)}: cannot be written ({error.strerror}); the next command makes"
            " them again",
            file=sys.stderr,
            flush=True,
        )
    return made


def _path(key: str) -> Path:
    return cache_folder() / "vectors" / f"{key}.f4"


def _read(key: str, shape: tuple[int, int]) -> Floats | None:
    """The matrix in a file; None where it is missing or damaged."""
    size = _SUM_BYTES + 4 * math.prod(shape)
    try:
        with open_regular(_path(key)) as file:
            data = file.read(size + 1)
    except OSError:
        return None
    rows = data[_SUM_BYTES:]
    if len(data) != size or data[:_SUM_BYTES] != _sum(key, rows):
        return None
    return np.frombuffer(rows, "<f4").reshape(shape).astype(np.float32)


def _write(key: str, rows_ND: Floats) -> None:
    path = _path(key)
    rows = rows_ND.astype("<f4").tobytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(_sum(key, rows) + rows)
    others = sorted(path.parent.glob("*.f4"), key=lambda each: each.stat().st_mtime_ns)
    for old in others[:-KEPT]:
        old.unlink(missing_ok=True)


def _sum(key: str, rows: bytes) -> bytes:
    return hashlib.sha256(rows + key.encode()).digest()


@cache
def _environment() -> dict[str, Any]:
    """What decides the last bits of vectors besides model and texts."""
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "none"
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "code": [hash_file(path) for path in sorted(Path(__file__).parent.rglob("*.py"))],
        "packages": installed,
        "processor": [platform.machine(), torch.backends.cpu.get_cpu_capability(), _model_of_processor()],
        "gpus": gpus,
    }


def _model_of_processor() -> str:
    try:
        with _CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
            return next((line for line in lines if line.startswith("model name")), "").strip()
    except OSError:  # not Linux
        return platform.processor()
