"""The rows of a Parquet file from outside, as Python values; `data.tables.read` converts them to text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as kind

from data.errors import ManifestError, foreign_as

_ROWS_AT_A_TIME = 16_384
# Limit on rows, and on values of lists: a small file that unpacks to more is a decompression bomb.
_VALUES_PER_BYTE = 64
_VALUES_ALWAYS = 1_000_000


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file: the place of each (`row 7`), and its cells by column.

    Dates and times come as text, 16- and 32-bit floats as the shortest decimal that identifies them. Raises
    ManifestError where the file is damaged, is not a table, or has more rows than its size can hold.
    """
    number = 0
    with foreign_as(ManifestError, f"{path}: not a readable Parquet file"):
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise ManifestError(f"{path}: duplicate column name in {names}")
            _require_sane(path, file.metadata.num_rows)
            leaves = [file.schema.column(place) for place in range(len(file.schema))]
        # Texts stay dictionary-encoded: a long text that thousands of rows share is in memory once.
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(_ROWS_AT_A_TIME):
                for column in batch.columns:
                    _require_sane(path, len(column.flatten()) if _is_list(column.type) else len(column))
                columns = [_values(column) for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(names, cells, strict=True))


def _require_sane(path: Path, rows: int) -> None:
    """Raise ManifestError for far more rows, or values of lists, than the file's size can hold.

    The footer's statistics of single columns are not used: a damaged footer makes pyarrow end the process.
    """
    size = path.stat().st_size
    if rows > max(_VALUES_ALWAYS, _VALUES_PER_BYTE * size):
        raise ManifestError(f"{path}: {rows:,} rows or values in {size:,} bytes; the file is damaged")


def _is_list(of: pa.DataType) -> bool:
    return any(is_kind(of) for is_kind in (kind.is_list, kind.is_large_list, kind.is_fixed_size_list))


def _values(column: pa.Array) -> list[Any]:
    if kind.is_dictionary(column.type):
        known = _values(column.dictionary)
        return [None if place is None else known[place] for place in column.indices.to_pylist()]
    if _is_list(column.type):
        items = iter(_values(column.flatten()))
        lengths = pc.list_value_length(column).to_pylist()
        return [None if length is None else list(islice(items, length)) for length in lengths]
    if (
        kind.is_temporal(column.type)
        and not kind.is_duration(column.type)
        and not kind.is_interval(column.type)
    ):
        column = pc.cast(column, pa.string())
        return [None if text is None else _plain_time(text) for text in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    if kind.is_float16(column.type) or kind.is_float32(column.type):
        return [None if value is None else float(str(np.float32(value))) for value in values]
    return values


def _plain_time(text: str) -> str:
    """A time without trailing zeros of its fraction, and a date without midnight."""
    moment, point, rest = text.partition(".")
    fraction, zone = rest.rstrip("Z"), "Z" if text.endswith("Z") else ""
    fraction = fraction.rstrip("0")
    return f"{moment}{point if fraction else ''}{fraction}{zone}".removesuffix(" 00:00:00")
