"""Rows to encode, some at a time: ids, groups and hashes are held, texts are read where they are stored.

`StoredTexts` reads the texts of some rows again, and compares them with their hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError, first_line

Ints = npt.NDArray[np.integer]
Digests = npt.NDArray[np.uint64]  # [N, 4]: 32 bytes each
HASH = pa.binary(32)
# Of every column of ids, names and hashes that grows with the rows: 33.5 million hashes of 64 letters fill
# the 2 GiB that the offsets of `string` can address, and joining more raises ArrowInvalid.
TEXT = pa.large_string()
ROWS_AT_A_TIME = 65_536


@dataclass(frozen=True)
class StoredTexts:
    """Texts in the column `text` of Parquet files: `i` is in row `rows_N[i]` of `files[files_N[i]]`."""

    files: Sequence[Path]
    files_N: Ints
    rows_N: Ints

    def __len__(self) -> int:
        return len(self.rows_N)

    def take(self, rows: Any) -> StoredTexts:
        """The texts at some places of this column."""
        some = np.asarray(rows, np.int64)
        return StoredTexts(self.files, self.files_N[some], self.rows_N[some])

    def to_pylist(self) -> list[str]:
        """The texts. Raises KnowledgeBaseError for a file that is gone or damaged."""
        found: list[str] = [""] * len(self)
        for number in np.unique(self.files_N).tolist():
            own = np.flatnonzero(self.files_N == number)
            texts = _texts_at(self.files[number], self.rows_N[own])
            for place, text in zip(own.tolist(), texts, strict=True):
                found[place] = text
        return found


def _texts_at(path: Path, rows: Ints) -> list[str]:
    """The texts of some rows of a file, in the order of `rows`; only their row groups are read."""
    try:
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            groups = np.searchsorted(ends, rows, side="right")
            texts: list[str] = [""] * len(rows)
            for group in np.unique(groups).tolist():
                own = np.flatnonzero(groups == group)
                column = file.read_row_group(group, columns=["text"]).column("text").combine_chunks()
                some = column.take(pa.array(rows[own] - (ends[group] - sizes[group]))).to_pylist()
                for place, text in zip(own.tolist(), some, strict=True):
                    texts[place] = text
            return texts
    except (pa.ArrowException, OSError, KeyError) as error:
        raise KnowledgeBaseError(
            f"{path}: changed while its texts were encoded ({first_line(error)}); run `unibind encode` again"
        ) from error


@dataclass(frozen=True)
class WantedVectors:
    """Some of the rows that a table should have, in any order, as columns of equal length.

    `sources` are texts, or with `files` paths of files whose modality is their group. `contents` are the
    SHA-256 of each, in 32 bytes for texts, in hex for files. `labels` name the files in messages, instead of
    their full paths; `ups` is the axis of a file that points up, null for the default of its format.
    """

    ids: pa.LargeStringArray
    groups: pa.LargeStringArray
    contents: pa.FixedSizeBinaryArray | pa.LargeStringArray
    sources: pa.LargeStringArray | StoredTexts
    files: bool = False
    labels: pa.LargeStringArray | None = None
    ups: pa.LargeStringArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def digests(self) -> Digests:
        """32 bytes per row: rows with equal ones have equal vectors."""
        if self.files:
            return digests_of(self.groups, self.contents, files=True)
        return _as_numbers(self.contents)

    def hexes(self) -> list[str]:
        """The SHA-256 (hex) of the rows."""
        contents = self.contents.to_pylist()
        return contents if self.files else [each.hex() for each in contents]


def digests_of(groups: pa.Array, contents: pa.Array, *, files: bool) -> Digests:
    """`WantedVectors.digests` of columns as they are stored: groups, and contents in hex.

    A file counts together with its modality. A text's content that is no SHA-256 (unknown: "") equals none.
    """
    joined = bytearray()
    for start in range(0, len(contents), ROWS_AT_A_TIME):
        some = contents[start : start + ROWS_AT_A_TIME].to_pylist()
        if files:
            names = groups[start : start + ROWS_AT_A_TIME].to_pylist()
            keys = (f"{name}:{content}".encode() for name, content in zip(names, some, strict=True))
            joined += b"".join(sha256(key).digest() for key in keys)
        else:
            joined += b"".join(map(_from_hex, some))
    return np.frombuffer(bytes(joined), np.uint64).reshape(-1, 4)


def _from_hex(content: str) -> bytes:
    with suppress(ValueError):
        found = bytes.fromhex(content)
        if len(found) == HASH.byte_width:
            return found
    return bytes(HASH.byte_width)


def hash_texts(texts: pa.StringArray | pa.LargeStringArray) -> pa.FixedSizeBinaryArray:
    """The SHA-256 of each text's UTF-8 bytes."""
    if not len(texts):
        return pa.array([], HASH)
    _, offsets, data = texts.buffers()
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    ends = np.frombuffer(offsets, width)[texts.offset : texts.offset + len(texts) + 1].tolist()
    held = memoryview(data) if data is not None else memoryview(b"")
    joined = b"".join(sha256(held[start:stop]).digest() for start, stop in pairwise(ends))
    return pa.FixedSizeBinaryArray.from_buffers(HASH, len(texts), [None, pa.py_buffer(joined)])


def _as_numbers(contents: pa.FixedSizeBinaryArray) -> Digests:
    _, data = contents.buffers()
    if data is None:
        return np.zeros((0, 4), np.uint64)
    start = contents.offset
    return np.frombuffer(data, np.uint64).reshape(-1, 4)[start : start + len(contents)]
