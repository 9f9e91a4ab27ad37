"""Rows of a table from outside (Parquet, CSV, JSONL), and one list of everything that is wrong with it."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import ManifestError, first_line
from data.reads import reading

FORMATS = (".parquet", ".csv", ".jsonl")
# Control characters but line breaks and tabs, which a description may hold; and lone surrogates, which could
# not even be stored.
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SHOWN = 20  # mistakes that are told one by one; the rest are counted


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands (`line 7`, `row 7`) and its cells. Empty cells are None."""

    where: str
    cells: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that a file has (a JSONL file: that any of its rows has) and its rows in file order."""

    columns: frozenset[str]
    rows: list[Row]


class Mistakes:
    """Everything that is wrong with one file; told at once, by one ManifestError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shown: list[str] = []
        self._count = 0

    def add(self, where: str, what: str, *, given: str | None = None, known: Collection[str] = ()) -> None:
        """Note a mistake; where `given` resembles one of `known`, that is suggested."""
        self._count += 1
        if len(self._shown) < _SHOWN:
            self._shown.append(f"{where}: {what}{_suggestion(given, known)}")

    def raise_if_any(self) -> None:
        """Raise ManifestError with the first 20 mistakes and the number of all."""
        if not self._count:
            return
        count = f"{self._count} mistake{'s' if self._count > 1 else ''}"
        rest = [f"... and {self._count - _SHOWN} more"] if self._count > _SHOWN else []
        raise ManifestError("\n  ".join([f"{self._path}: {count}", *self._shown, *rest]))


def _suggestion(given: str | None, known: Collection[str]) -> str:
    if given is None or not known:
        return ""
    by_folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(given.casefold(), by_folded, n=1)
    if close:
        return f"; did you mean {by_folded[close[0]]!r}?"
    listed = ", ".join(sorted(known)[:12])
    return f"; known: {listed}{', ...' if len(known) > 12 else ''}"


def read_table(path: Path, mistakes: Mistakes) -> Table:
    """The rows of a Parquet, CSV or JSONL file, by its ending.

    Text is stripped of outer spaces, whole numbers become text, and empty cells, nulls and NaN become None.
    A mistake in one row goes to `mistakes`. Raises ManifestError where the file cannot be read at all.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ManifestError(
            f"{path}: unknown format {ending or '(no ending)'!r}; give one of {', '.join(FORMATS)}"
        )
    if not reading(path).is_file():
        raise ManifestError(f"{path}: no such file")
    if ending == ".parquet":
        raw = _parquet_rows(path)
    elif ending == ".csv":
        raw = _csv_rows(path, mistakes)
    else:
        raw = _jsonl_rows(path, mistakes)
    columns: set[str] = set()
    rows = []
    for where, cells in raw:
        columns.update(cells)
        rows.append(Row(where, {name: _cell(value, where, name, mistakes) for name, value in cells.items()}))
    return Table(frozenset(columns), rows)


def read_text(path: Path) -> str:
    """A UTF-8 text file (a byte-order mark is dropped); ManifestError where it is not one."""
    try:
        return reading(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None


def _cell(value: Any, where: str, column: str, mistakes: Mistakes) -> Any:
    if isinstance(value, list | tuple):
        items = [_cell(item, where, column, mistakes) for item in value]
        return [item for item in items if item is not None]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        mistakes.add(where, f"{column} is {type(value).__name__} {value!r:.40}, not text")
        return None
    text = value.strip()
    if _UNFIT.search(text):
        mistakes.add(where, f"{column} holds a control character or broken text: {text!r:.60}")
        return None
    return text or None


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: not a readable Parquet file: {first_line(error)}") from None
    if len(set(table.column_names)) < len(table.column_names):
        raise ManifestError(f"{path}: a column name stands twice in {table.column_names}")
    if not table.num_rows:
        return
    for number, cells in enumerate(table.to_pylist(), start=1):
        yield f"row {number}", cells


def _csv_rows(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise ManifestError(f"{path}: line 1: a column name stands twice in {', '.join(header)}")
        line = reader.line_num + 1
        for cells in reader:
            # A blank line ends many files; it is no row.
            if len(cells) == len(header):
                yield f"line {line}", dict(zip(header, cells, strict=True))
            elif cells:
                mistakes.add(f"line {line}", f"{len(cells)} cells, but the header has {len(header)} columns")
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}: line {reader.line_num}: not valid CSV: {error}") from None


def _jsonl_rows(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            value = parse_json(line)
        except ValueError as error:
            mistakes.add(where, f"not valid JSON: {error}")
            continue
        if isinstance(value, dict):
            yield where, value
        else:
            mistakes.add(where, f"a {type(value).__name__}, not an object in braces")


def parse_json(text: str) -> Any:
    """JSON whose objects name no key twice and nest no deeper than Python follows; else ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"a key stands twice in {sorted(key for key, _ in pairs)}")
    return value
