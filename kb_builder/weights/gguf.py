"""Header of a GGUF file: read and checked before llama.cpp loads the file.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian:

    "GGUF", version u32, tensors u64, entries u64
    entries:  key (u64 length, UTF-8), type u32, value
    tensors:  name (u64 length, UTF-8), dimensions u32, u64 each, type u32, offset u64

Every count and length is checked against the file's size before anything is read, so a damaged or hostile
file costs neither time nor memory. Arrays (vocabularies) are skipped.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data.errors import InputError

_MAGIC = b"GGUF"
_VERSIONS = {2, 3}
_MOST_KEY = 65_535  # bytes, by the format
_MOST_TEXT = 4 * 2**20  # bytes of a text; a chat template has a few thousand
_MOST_ENTRIES = 100_000
_MOST_TENSORS = 1_000_000
_MOST_TEXTS = 4_000_000  # in one array; the largest vocabularies have 300,000
_MOST_DIMENSIONS = 4
_MOST_DEPTH = 4  # arrays of arrays
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class GgufHeader:
    """`values`: the entries that are not arrays, by key. `tensors`: their number."""

    values: Mapping[str, Any]
    tensors: int

    @property
    def architecture(self) -> str:
        """The model's architecture, such as `llama`."""
        return str(self.values["general.architecture"])

    @property
    def context(self) -> int | None:
        """Context length in tokens, or None if the file does not state it."""
        value = self.values.get(f"{self.architecture}.context_length")
        return value if isinstance(value, int) and value > 0 else None

    @property
    def template(self) -> str | None:
        """The chat template (Jinja), or None."""
        value = self.values.get("tokenizer.chat_template")
        return value if isinstance(value, str) and value.strip() else None


def read_header(path: Path) -> GgufHeader:
    """Read and check a header. Raises InputError for a file that is missing, truncated or not GGUF."""
    try:
        with path.open("rb") as file:
            return _HeaderReader(file, path.stat().st_size).read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except _DamagedHeaderError as damage:
        raise InputError(f"{path}: {damage}; download the file again, or name another") from None


class _DamagedHeaderError(Exception):
    """What is wrong with the file."""


class _HeaderReader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self) -> GgufHeader:
        magic = self._file.read(4)
        if magic != _MAGIC:
            raise _DamagedHeaderError("is not a GGUF file (it does not begin with GGUF)")
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            other = (
                "written for a big-endian machine"
                if version & 0xFFFF == 0 and version
                else "none that is known"
            )
            raise _DamagedHeaderError(f"GGUF version {version} is {other} (known: 2 and 3)")
        tensors, entries = self._numbers("QQ")
        self._at_most(entries, _MOST_ENTRIES, "entries")
        self._at_most(tensors, _MOST_TENSORS, "tensors")
        values = {}
        for _ in range(entries):
            key = self._text(_MOST_KEY)
            (kind,) = self._numbers("I")
            if key in values:
                raise _DamagedHeaderError(f"its header has {key[:80]!r} twice")
            value = self._value(kind, key)
            if value is not None:
                values[key] = value
        if not isinstance(values.get("general.architecture"), str):
            raise _DamagedHeaderError("its header does not say what model it is (general.architecture)")
        last = self._tensors(tensors)
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _DamagedHeaderError(f"its alignment of {alignment!r} bytes is not a power of two")
        begin = math.ceil(self._file.tell() / alignment) * alignment
        if tensors and begin + last >= self._size:
            raise _DamagedHeaderError(
                f"is cut off: {self._size:,} bytes, its last tensor begins at {begin + last:,}"
            )
        return GgufHeader(values, tensors)

    def _tensors(self, count: int) -> int:
        """Read the descriptions of the tensors; returns the largest offset."""
        last = 0
        for _ in range(count):
            name = self._text(_MOST_KEY)
            (dimensions,) = self._numbers("I")
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise _DamagedHeaderError(f"its tensor {name[:80]!r} has {dimensions} dimensions")
            sizes = self._numbers(f"{dimensions}Q")
            if min(sizes) < 1 or math.prod(sizes) > 2**63:
                raise _DamagedHeaderError(f"its tensor {name[:80]!r} has the sizes {list(sizes)}")
            _, offset = self._numbers("IQ")
            last = max(last, offset)
        return last

    def _value(self, kind: int, key: str, depth: int = 0) -> Any:
        """A value; None for an array, which is skipped."""
        if kind in _NUMBERS:
            return self._numbers(_NUMBERS[kind])[0]
        if kind == _STRING:
            return self._text(_MOST_TEXT)
        if kind != _ARRAY or depth >= _MOST_DEPTH:
            raise _DamagedHeaderError(f"its entry {key[:80]!r} has a type that is unknown ({kind})")
        inner, count = self._numbers("IQ")
        if inner in _NUMBERS:
            self._skip(count * struct.calcsize(_NUMBERS[inner]))
            return None
        # Each text takes at least the eight bytes of its length.
        self._at_most(count, min(_MOST_TEXTS, self._left() // 8), f"texts in {key[:80]!r}")
        for _ in range(count):
            if inner == _STRING:
                (length,) = self._numbers("Q")
                self._skip(length)
            else:
                self._value(inner, key, depth + 1)
        return None

    def _numbers(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{form}")
        raw = self._file.read(size)
        if len(raw) < size:
            raise _DamagedHeaderError(f"is cut off within its header, after {self._size:,} bytes")
        return struct.unpack(f"<{form}", raw)

    def _text(self, most: int) -> str:
        (length,) = self._numbers("Q")
        self._at_most(length, most, "bytes of a text")
        raw = self._file.read(length)
        if len(raw) < length:
            raise _DamagedHeaderError(f"is cut off within its header, after {self._size:,} bytes")
        return raw.decode("utf-8", errors="replace")

    def _skip(self, count: int) -> None:
        if count > self._left():
            raise _DamagedHeaderError(f"is cut off within its header, after {self._size:,} bytes")
        self._file.seek(count, 1)

    def _left(self) -> int:
        return self._size - self._file.tell()

    def _at_most(self, count: int, most: int, what: str) -> None:
        if count > min(most, self._size):
            raise _DamagedHeaderError(f"its header claims {count:,} {what}: it is damaged")
