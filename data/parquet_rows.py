"""The rows of a Parquet file from outside, with Python values that `data.tables` makes text of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as kind

from data.errors import ManifestError, first_line

_ROWS_AT_A_TIME = 65_536


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file: where each stands (`row 7`), and its cells by column.

    Dates and times come as text, 16- and 32-bit floats as the shortest decimal that means them. Raises
    ManifestError where the file is damaged or holds no table.
    """
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise ManifestError(f"{path}: a column name stands twice in {names}")
            for batch in file.iter_batches(_ROWS_AT_A_TIME):
                columns = [_values(column) for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(names, cells, strict=True))
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise ManifestError(f"{path}: not a readable Parquet file: {first_line(error)}") from None


def _values(column: pa.Array) -> list[Any]:
    if kind.is_dictionary(column.type):
        column = column.dictionary_decode()
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
    """A time without the zeros that only its resolution gave it, and a date without midnight."""
    moment, point, rest = text.partition(".")
    fraction, zone = rest.rstrip("Z"), "Z" if text.endswith("Z") else ""
    fraction = fraction.rstrip("0")
    return f"{moment}{point if fraction else ''}{fraction}{zone}".removesuffix(" 00:00:00")
