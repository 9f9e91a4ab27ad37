"""Shard: one Parquet file of vectors, in a layout whose floats can be read without decoding.

    id       string                              unique within a table
    group    string                              what is read together: a category, a modality
    content  string                              SHA-256 (hex) of the text, or of the sample's file
    vector   fixed_size_list<float16|float32>[D] a unit row, or zeros; never null, NaN or infinite

Rows are sorted by (group, id) and each group is one row group of one page (of at most 20,000 rows). Vectors
are PLAIN and uncompressed, without dictionary or statistics, so a row group's vectors are one run of bytes:
little-endian floats. When a shard is written, the offset and the CRC-32 of each run are recorded, after a
check that the bytes at that offset are the vectors. A row group whose run is not found is read through
pyarrow. Every page carries Parquet's own CRC-32 as well, so that other readers notice damage too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError, first_line
from data.files import atomic_path, signature
from data.reads import reading

try:
    from isal.isal_zlib import crc32
except ImportError:  # no build for this platform; zlib computes the same sum, a few times slower
    from zlib import crc32

Dtype = Literal["float16", "float32"]
Floats = npt.NDArray[np.float32]

COLUMNS = ("id", "group", "content", "vector")
# One page must hold a whole row group. The default of 1 MiB would cut its floats, and pyarrow ends a page at
# 20,000 rows at any size.
_PAGE_BYTES = 2**30
_PAGE_ROWS = 20_000
# float16 rounds each value by at most 2^-11 of itself, so a unit row stays one within half of this.
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RowGroup:
    """The vectors of one group in one shard: `rows` of them from byte `offset`; None: not in one run."""

    group: str
    rows: int
    offset: int | None
    crc32: int


@dataclass(frozen=True)
class Shard:
    """One file of a table, as its manifest describes it."""

    name: str
    bytes: int
    row_groups: tuple[RowGroup, ...]

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(each.rows for each in self.row_groups)


@dataclass(frozen=True)
class Contents:
    """The whole content of a shard, every byte checked."""

    shard: Shard
    ids: pa.StringArray
    groups: pa.StringArray
    contents: pa.StringArray
    stored_ND: npt.NDArray[Any]  # float16 or float32, as stored
    metadata: dict[str, str]


def vector_schema(dim: int, dtype: Dtype = "float16") -> pa.Schema:
    """The schema of a shard of `dim`-dimensional vectors."""
    element = pa.field("element", pa.float16() if dtype == "float16" else pa.float32(), nullable=False)
    kinds = (pa.string(), pa.string(), pa.string(), pa.list_(element, dim))
    return pa.schema([pa.field(name, kind, False) for name, kind in zip(COLUMNS, kinds, strict=True)])


def write_shard(
    path: Path,
    *,
    ids: Sequence[str],
    groups: Sequence[str],
    contents: Sequence[str],
    vectors_ND: npt.NDArray[np.floating],
    dtype: Dtype,
    metadata: dict[str, str],
) -> Shard:
    """Write one shard, atomically; the same rows in any order give the same bytes.

    Vectors are rounded to `dtype`. `metadata` goes into the file's schema metadata. Raises KnowledgeBaseError
    naming the row for a value that is NaN or infinite, for a row that is neither of unit length nor zero, and
    for a duplicate id; and ValueError if the arguments differ in length.
    """
    if vectors_ND.ndim != 2 or not len(ids) == len(groups) == len(contents) == len(vectors_ND):
        raise ValueError(f"{len(ids)} ids, {len(groups)} groups and vectors {vectors_ND.shape} do not fit")
    check_rows(path, ids, vectors_ND)
    order = sorted(range(len(ids)), key=lambda row: (groups[row], ids[row]))
    schema = vector_schema(vectors_ND.shape[1], dtype).with_metadata(metadata)
    floats = vectors_ND[order].astype(dtype).reshape(-1)
    table = pa.Table.from_arrays(
        [
            *(pa.array([column[row] for row in order], pa.string()) for column in (ids, groups, contents)),
            pa.FixedSizeListArray.from_arrays(pa.array(floats), type=schema.field("vector").type),
        ],
        schema=schema,
    )
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(
            temporary,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=["id", "group", "content"],
            data_page_size=_PAGE_BYTES,
            write_page_checksum=True,
        ) as writer:
            start = 0
            for _, rows in groupby(sorted(groups)):
                stop = start + sum(1 for _ in rows)
                for first in range(start, stop, _PAGE_ROWS):
                    size = min(_PAGE_ROWS, stop - first)
                    writer.write_table(table.slice(first, size), row_group_size=size)
                start = stop
        shard = _inspect(temporary).shard
    return Shard(path.name, shard.bytes, shard.row_groups)


def inspect_shard(path: Path) -> Contents:
    """Read a whole shard through pyarrow, every page checked. Raises KnowledgeBaseError if it is damaged."""
    return _inspect(reading(path, checked=False))


def _inspect(path: Path) -> Contents:
    try:
        with (  # opened once, since a writer may delete the file meanwhile
            pa.OSFile(str(path)) as file,
            pq.ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            table, footer, size = parquet.read(), parquet.metadata, file.size()
            dim, dtype = _layout(path, table.schema)
            stored_ND = stored_vectors(table.column("vector"), dim, dtype)
            ids, groups, contents = (_one_chunk(table.column(name)) for name in COLUMNS[:3])
            row_groups = []
            start = 0
            for number in range(footer.num_row_groups):
                rows = footer.row_group(number).num_rows
                if not rows:
                    continue
                floats = stored_ND[start : start + rows].tobytes()
                offset = _find_floats(file, footer.row_group(number).column(len(COLUMNS) - 1), floats)
                row_groups.append(RowGroup(groups[start].as_py(), rows, offset, crc32(floats)))
                start += rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damaged(path, first_line(error)) from error
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    shard = Shard(path.name, size, tuple(row_groups))
    return Contents(shard, ids, groups, contents, stored_ND, metadata)


def read_names(path: Path, row_groups: Sequence[int], columns: Sequence[str] = ("id",)) -> pa.Table:
    """Columns of some row groups, without their vectors by default; every page checked."""
    try:
        footer = _footer(reading(path, checked=False), *(signature(path) or ()))
        with pq.ParquetFile(path, metadata=footer, page_checksum_verification=True) as file:
            return file.read_row_groups(list(row_groups), columns=list(columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damaged(path, first_line(error)) from error


@lru_cache(maxsize=32)
def _footer(path: Path, *_known: int) -> pq.FileMetaData:
    """A shard's footer, cached: reading a thousand row groups one by one parses it once."""
    return pq.read_metadata(path)


def read_floats(path: Path, shard: Shard, first: int, stop: int, out_ND: Floats, dtype: Dtype) -> None:
    """Read the vectors of row groups `first` … `stop` - 1 of a shard into float32 rows.

    Each row group is one read without decoding, checked against its CRC-32 and widened; a row group without
    an offset is read through pyarrow. (The file is read, not memory-mapped: reading is as fast, and
    truncating a mapped file would kill the process.) Raises KnowledgeBaseError if the file does not match
    the manifest.
    """
    try:
        with reading(path, checked=False).open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            if size != shard.bytes:
                raise damaged(path, f"{size} bytes, the manifest says {shard.bytes}")
            row = 0
            for number, group in enumerate(shard.row_groups[first:stop], start=first):
                target_ND = out_ND[row : row + group.rows]
                row += group.rows
                if group.offset is None:
                    _read_through_pyarrow(path, number, group, target_ND, dtype)
                    continue
                stored_ND = target_ND if dtype == "float32" else np.empty(target_ND.shape, np.float16)
                file.seek(group.offset)
                _read_exactly(path, file, stored_ND)
                if crc32(stored_ND.reshape(-1).view(np.uint8)) != group.crc32:
                    raise damaged(path, f"the vectors of {group.group!r} fail their checksum")
                if stored_ND is not target_ND:
                    _widen(stored_ND, target_ND)
    except FileNotFoundError as error:
        raise damaged(path, "missing, though the manifest lists it") from error


def _read_exactly(path: Path, file: FileIO, stored_ND: npt.NDArray[Any]) -> None:
    view = stored_ND.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        if not (got := file.readinto(view[done:])):
            raise damaged(path, "truncated")
        done += got


def check_rows(where: Path, ids: Sequence[str], vectors_ND: npt.NDArray[np.floating]) -> None:
    """Raise KnowledgeBaseError for a row that is neither of unit length nor zero, and for a duplicate id."""
    with np.errstate(invalid="ignore", over="ignore"):
        lengths_N = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64))
    fit_N = (np.abs(lengths_N - 1) <= UNIT_TOLERANCE) | (lengths_N == 0)
    if not fit_N.all():
        row = int(np.argmin(fit_N))
        reason = (
            f"has length {lengths_N[row]:.4g}, not 1"
            if np.isfinite(lengths_N[row])
            else "holds NaN or infinite values"
        )
        raise KnowledgeBaseError(f"{where}: the vector of {ids[row]!r} {reason}; run `unibind encode` again")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        duplicate = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise KnowledgeBaseError(
            f"{where}: duplicate id {duplicate!r}; delete the folder and run `unibind encode` again"
        )


def damaged(path: Path, reason: str) -> KnowledgeBaseError:
    """The error for a damaged shard or manifest."""
    return KnowledgeBaseError(f"{path}: damaged ({reason}); run `unibind encode` again")


def stored_vectors(column: pa.ChunkedArray, dim: int, dtype: Dtype) -> npt.NDArray[Any]:
    """A vector column as a matrix [N, D], in the stored dtype."""
    # `.flatten()`, not `.values`: the latter ignores the offset of a slice.
    flat = _one_chunk(column).flatten().to_numpy(zero_copy_only=False)
    stored: npt.NDArray[Any] = np.asarray(flat, dtype=dtype).reshape(-1, dim)
    return stored


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _layout(path: Path, schema: pa.Schema) -> tuple[int, Dtype]:
    kind = schema.field("vector").type if "vector" in schema.names else pa.null()
    dim = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
    for dtype in ("float16", "float32"):
        if dim and schema.equals(vector_schema(dim, dtype)):
            return dim, dtype
    raise KnowledgeBaseError(
        f"{path}: not a shard of the embedding store (columns {', '.join(COLUMNS)}); delete it and run"
        " `unibind encode` again"
    )


def _find_floats(file: Any, column: Any, floats: bytes) -> int | None:
    """The offset of the column's floats, expected to be its last bytes; None if other bytes are there."""
    start = column.data_page_offset + column.total_compressed_size - len(floats)
    file.seek(max(0, start))
    return start if file.read(len(floats)) == floats else None


def _read_through_pyarrow(path: Path, number: int, group: RowGroup, target_ND: Floats, dtype: Dtype) -> None:
    column = read_names(path, [number], ["vector"]).column("vector")
    stored_ND = stored_vectors(column, target_ND.shape[1], dtype)
    if stored_ND.shape != target_ND.shape or crc32(stored_ND.tobytes()) != group.crc32:
        raise damaged(path, f"the vectors of {group.group!r} fail their checksum")
    target_ND[:] = stored_ND


def _widen(stored_ND: npt.NDArray[Any], target_ND: Floats) -> None:
    """Convert float16 to float32, by torch if it is loaded: several times faster, but it takes a second to
    import."""
    torch = sys.modules.get("torch")
    if torch is None:
        target_ND[:] = stored_ND
    else:
        torch.from_numpy(target_ND).copy_(torch.from_numpy(stored_ND))
