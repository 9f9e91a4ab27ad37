"""Rows to encode, in little memory: ids, groups and hashes are held, texts are read where they are stored.

A row of texts takes about 70 bytes: its id, its group as a number, the SHA-256 of its text in 32 bytes, and
the place of its text. `StoredTexts` reads the texts of some rows again, and compares them with their hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError, first_line

Ints = npt.NDArray[np.integer]
Digests = npt.NDArray[np.uint64]  # [N, 4]: 32 bytes each
HASH = pa.binary(32)
# Of every column of ids, names and hashes that grows with the rows: 33.5 million hashes of 64 letters fill
# the 2 GiB that the offsets of `string` can address, and joining more raises ArrowInvalid.
TEXT = pa.large_string()
_AT_A_TIME = 65_536  # rows


@dataclass(frozen=True)
class StoredTexts:
    """Texts in the column `text` of Parquet files; `places_N` counts the rows of all files in order."""

    files: Sequence[Path]
    starts: Sequence[int]  # of each file: the number of its first row
    places_N: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places_N)

    def take(self, rows: Any) -> StoredTexts:
        """The texts at some places of this column."""
        return StoredTexts(self.files, self.starts, self.places_N[np.asarray(rows)])

    def located(self, rows: Ints) -> tuple[list[Path], Ints, Ints]:
        """The files of some texts, and of each text the number of its file there and its row in it."""
        places_N = self.places_N[rows]
        numbers, file_N = np.unique(self._numbers(places_N), return_inverse=True)
        starts_N = np.asarray(self.starts, np.int64)[numbers]
        row_N = places_N - starts_N[file_N] if len(places_N) else places_N
        return [self.files[number] for number in numbers.tolist()], file_N, row_N

    def _numbers(self, places_N: Ints) -> Ints:
        """The number of the file at each place."""
        return np.searchsorted(np.asarray(self.starts), places_N, side="right") - 1

    def to_pylist(self) -> list[str]:
        """The texts. Raises KnowledgeBaseError for a file that is gone or damaged."""
        found: list[str] = [""] * len(self)
        file_N = self._numbers(self.places_N)
        for number in np.unique(file_N).tolist():
            own = np.flatnonzero(file_N == number)
            texts = _texts_at(self.files[number], self.places_N[own] - self.starts[number])
            for place, text in zip(own.tolist(), texts, strict=True):
                found[place] = text
        return found


def _texts_at(path: Path, rows: npt.NDArray[np.int64]) -> list[str]:
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


@dataclass
class WantedVectors:
    """The rows that a table should have, as columns of equal length.

    `sources` are texts, or with `files` paths of files whose modality is their group. `contents` are the
    SHA-256 of each, in 32 bytes for texts, in hex for files. `labels` name the files in messages, instead of
    their full paths; `ups` is the axis of a file that points up, null for the default of its format.
    """

    ids: pa.LargeStringArray
    groups: pa.DictionaryArray  # the names in ascending order
    contents: pa.FixedSizeBinaryArray | pa.LargeStringArray
    sources: pa.LargeStringArray | StoredTexts
    files: bool = False
    labels: pa.LargeStringArray | None = None
    ups: pa.LargeStringArray | None = None

    def __post_init__(self) -> None:
        for name in ("ids", "contents", "sources", "labels", "ups"):
            column = getattr(self, name)
            if isinstance(column, pa.StringArray):
                setattr(self, name, column.cast(TEXT))

    def __len__(self) -> int:
        return len(self.ids)

    def sort(self) -> None:
        """Sort the rows by (group, id): one column after the other, so that no second table is in memory."""
        columns = {"group": self.groups.indices, "id": self.ids}
        order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
        for name in ("ids", "groups", "contents", "sources", "labels", "ups"):
            column = getattr(self, name)
            if column is not None:
                setattr(self, name, column.take(order))
        del columns, order
        pa.default_memory_pool().release_unused()

    def digests(self) -> Digests:
        """32 bytes per row: rows with equal ones have equal vectors."""
        if self.files:
            return digests_of(self.groups.cast(TEXT), self.contents, files=True)
        return _as_numbers(self.contents)

    def hexes(self, rows: Iterable[int]) -> list[str]:
        """The SHA-256 (hex) of some rows."""
        some = self.contents.take(pa.array(rows, pa.int64())).to_pylist()
        return some if self.files else [each.hex() for each in some]

    def keys(self, rows: Sequence[int]) -> list[str]:
        """The content keys of some rows: `hexes`, prefixed by "text", or for files by their modality."""
        hexes = self.hexes(rows)
        if not self.files:
            return [f"text:{each}" for each in hexes]
        groups = self.groups.take(pa.array(rows, pa.int64())).to_pylist()
        return [f"{group}:{each}" for group, each in zip(groups, hexes, strict=True)]


def digests_of(groups: pa.Array, contents: pa.Array, *, files: bool) -> Digests:
    """`WantedVectors.digests` of columns as they are stored: groups, and contents in hex.

    A file counts together with its modality. A text's content that is no SHA-256 (unknown: "") equals none.
    """
    joined = bytearray()
    for start in range(0, len(contents), _AT_A_TIME):
        some = contents[start : start + _AT_A_TIME].to_pylist()
        if files:
            names = groups[start : start + _AT_A_TIME].to_pylist()
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


def numbered(groups: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column of names, or of numbered names, as numbers into the names in ascending order."""
    coded = groups if pa.types.is_dictionary(groups.type) else groups.dictionary_encode()
    coded = coded.unify_dictionaries()
    if not coded.num_chunks:
        return pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], TEXT))
    names = coded.chunk(0).dictionary
    order = pc.sort_indices(names)
    ranks = np.empty(len(names), np.int32)
    ranks[order.to_numpy()] = np.arange(len(names), dtype=np.int32)
    numbers = np.concatenate([ranks[chunk.indices.to_numpy()] for chunk in coded.chunks])
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), names.take(order))


def _as_numbers(contents: pa.FixedSizeBinaryArray) -> Digests:
    _, data = contents.buffers()
    if data is None:
        return np.zeros((0, 4), np.uint64)
    start = contents.offset
    return np.frombuffer(data, np.uint64).reshape(-1, 4)[start : start + len(contents)]
