"""The embedding store: vectors in plain Parquet files that any tool reads.

One file, `part-NNNNN.parquet`:

    id      string                          unique within a folder
    group   string                          what one reads together: a category, a modality
    vector  fixed_size_list<float32>[D]     never null, never NaN or infinite

Rows are sorted by (group, id) and each group is one row group. Vectors are PLAIN and uncompressed, without
dictionary or statistics, so that a row group's floats lie contiguously in the file as little-endian float32:
this reads faster than pyarrow's defaults and DuckDB skips the groups it was not asked for. Every page carries
a CRC-32, so a damaged file is refused, not trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from data.files import atomic_path

# One page holds a whole row group (of up to pyarrow's 20,000 rows): 1 MiB, the default, would cut its floats.
_PAGE_BYTES = 2**30


@dataclass(frozen=True)
class Vectors:
    """The rows of a folder: `vectors_ND[i]` belongs to `ids[i]` and `groups[i]`."""

    ids: list[str]
    groups: list[str]
    vectors_ND: npt.NDArray[np.float32]


def vector_schema(dim: int) -> pa.Schema:
    """The schema of a store file of `dim`-dimensional vectors."""
    element = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("group", pa.string(), nullable=False),
            pa.field("vector", pa.list_(element, dim), nullable=False),
        ]
    )


def write_vectors(
    path: Path,
    *,
    ids: Sequence[str],
    groups: Sequence[str],
    vectors_ND: npt.NDArray[np.floating],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write one store file, whole or not at all; the same rows in any order give the same bytes.

    `vectors_ND` is stored as float32; N may be 0 (the file then says only the dimension). `metadata` goes
    into the file's schema metadata, where `read_metadata` finds it. Raises KnowledgeBaseError naming the row
    for a value that is NaN or infinite and for a duplicate id, and ValueError where the arguments do not fit
    together.
    """
    if vectors_ND.ndim != 2 or vectors_ND.shape[1] == 0 or not len(ids) == len(groups) == len(vectors_ND):
        raise ValueError(
            f"{len(ids)} ids, {len(groups)} groups and vectors of shape {vectors_ND.shape} do not fit"
        )
    vectors_ND = np.asarray(vectors_ND, dtype=np.float32)
    _check_rows(path, ids, vectors_ND)
    order = sorted(range(len(ids)), key=lambda row: (groups[row], ids[row]))
    schema = vector_schema(vectors_ND.shape[1]).with_metadata(metadata)
    floats = vectors_ND[order].reshape(-1)
    table = pa.Table.from_arrays(
        [
            pa.array([ids[row] for row in order], pa.string()),
            pa.array([groups[row] for row in order], pa.string()),
            pa.FixedSizeListArray.from_arrays(floats, type=schema.field("vector").type),
        ],
        schema=schema,
    )
    sizes = [sum(1 for _ in rows) for _, rows in groupby(sorted(groups))]
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=["id", "group"],
            data_page_size=_PAGE_BYTES,
            write_page_checksum=True,
        ) as writer,
    ):
        for start, size in zip(accumulate(sizes, initial=0), sizes, strict=False):
            writer.write_table(table.slice(start, size), row_group_size=size)


def read_vectors(folder: Path) -> Vectors:
    """Every row of every `part-*.parquet` of a folder, parts in name order.

    Raises KnowledgeBaseError, naming the file and the row, where the folder has no part, a file is damaged,
    is no store file or has another dimension than its neighbours, a value is NaN or infinite, or an id comes
    twice.
    """
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise KnowledgeBaseError(f"{folder}: no vectors here; encode first (unibind encode)")
    ids: list[str] = []
    groups: list[str] = []
    blocks: list[npt.NDArray[np.float32]] = []
    for path in paths:
        part = read_part(path)
        dim = part.vectors_ND.shape[1]
        if blocks and dim != blocks[0].shape[1]:
            raise KnowledgeBaseError(
                f"{path}: {dim} dimensions, but {paths[0].name} has {blocks[0].shape[1]};"
                " delete the folder and encode again"
            )
        ids += part.ids
        groups += part.groups
        blocks.append(part.vectors_ND)
    vectors_ND = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    _check_rows(folder, ids, vectors_ND)
    return Vectors(ids, groups, vectors_ND)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that a store file was written with. Raises KnowledgeBaseError for a damaged file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return {key.decode(): value.decode() for key, value in metadata.items()}


def read_part(path: Path) -> Vectors:
    """The rows of one store file, every page checked against its CRC-32. Raises KnowledgeBaseError."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    kind = table.schema.field("vector").type if "vector" in table.schema.names else pa.null()
    dim = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
    if dim == 0 or not table.schema.equals(vector_schema(dim)):
        raise KnowledgeBaseError(
            f"{path}: not a store file (columns id, group, vector); delete it and encode again"
        )
    vector = table.column("vector").combine_chunks()
    # `.flatten()`, not `.values`: the latter ignores the offset of a slice.
    vectors_ND = vector.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return Vectors(table.column("id").to_pylist(), table.column("group").to_pylist(), vectors_ND)


def _check_rows(where: Path, ids: Sequence[str], vectors_ND: npt.NDArray[np.float32]) -> None:
    # A sum over the row is finite only if every value is (or two infinities meet, which gives NaN): one pass,
    # no temporary array of the matrix's size. Float64 keeps large finite values from overflowing.
    with np.errstate(invalid="ignore"):
        finite_N = np.isfinite(vectors_ND.sum(axis=1, dtype=np.float64))
    if not finite_N.all():
        bad = ids[int(np.argmin(finite_N))]
        raise KnowledgeBaseError(f"{where}: the vector of {bad!r} holds NaN or infinite values; encode again")
    if len(set(ids)) != len(ids):
        twice, _ = Counter(ids).most_common(1)[0]
        raise KnowledgeBaseError(f"{where}: the id {twice!r} comes twice; delete the folder and encode again")


def _damaged(path: Path, error: Exception) -> KnowledgeBaseError:
    reason = str(error).splitlines()[0]
    return KnowledgeBaseError(f"{path}: damaged ({reason}); delete the file and encode again")
