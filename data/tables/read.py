"""Reads a table from outside (Parquet, CSV, TSV, JSONL) as rows of text, from any program."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from data.errors import ManifestError
from data.reads import reading
from data.tables.delimited import delimited_rows
from data.tables.mistakes import Mistakes
from data.tables.parquet_rows import parquet_rows
from data.tables.text_files import read_text

__all__ = ["FORMATS", "Mistakes", "TextRow", "TextTable", "parse_json", "read_table", "read_text", "text_of"]

FORMATS = (".parquet", ".csv", ".tsv", ".jsonl")
# Control characters except line breaks and tabs, which a description may contain; and lone surrogates, which
# cannot be stored as UTF-8.
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_LONGEST = 131_072  # characters of a cell, the limit of Python's CSV reader
# Columns that pandas adds: `to_csv` and `to_parquet` write the index by default.
_INDEX = re.compile(r"(Unnamed: \d+([._].*)?|__index_level_\d+__|index|level_\d+|)", re.IGNORECASE)
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+")


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row: its place in the file (`line 7`, `row 7`) and its cells. Empty cells are None."""

    where: str
    cells: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextTable:
    """The columns of a file (of a JSONL file: those of any row) and its rows in file order."""

    columns: frozenset[str]
    rows: list[TextRow]


def read_table(
    path: Path,
    mistakes: Mistakes,
    *,
    known: Collection[str] = (),
    verbatim: Collection[str] = (),
    ending: str | None = None,
) -> TextTable:
    """The rows of a Parquet, CSV, TSV or JSONL file, by its ending (or by `ending` instead).

    `known` are the columns that the caller knows: a header in another spelling (`URI`, `Sample ID`) is read
    as one of them. Skipped, with a line in `mistakes.notes`, are pandas' index, columns without a name and a
    value, and rows without a value. Text is stripped of outer spaces, except in the columns `verbatim`;
    numbers, booleans and dates become text; empty cells, nulls and NaN become None. A mistake in one row goes
    to `mistakes`. Raises ManifestError where the file cannot be read at all.
    """
    ending = ending or path.suffix.lower()
    if ending not in FORMATS:
        raise ManifestError(
            f"{path}: unknown format {ending or '(no ending)'!r}; give one of {', '.join(FORMATS)}"
        )
    # Path.is_file raises for names that are too long for a file.
    if not os.path.isfile(reading(path)):  # noqa: PTH113
        raise ManifestError(f"{path}: no such file")
    if ending == ".parquet":
        raw = parquet_rows(path)
    elif ending == ".jsonl":
        raw = _jsonl_rows(path, mistakes)
    else:
        spellings = known_spellings(known)
        raw = delimited_rows(path, mistakes, lambda name: folded(name) in spellings, ending=ending)
    columns = _Columns(known)
    rows = []
    empty = 0
    for where, cells in raw:
        row = TextRow(where, {})
        for given, value in cells.items():
            name = columns.name_of(given, value)
            if name is None:
                continue
            if name in row.cells:
                raise ManifestError(f"{path}: {where}: duplicate column {name!r}, also spelt {given!r}")
            row.cells[name] = text_of(value, where, name, mistakes, strip=name not in verbatim)
            if row.cells[name] is not None:
                columns.look_at(name, value)
        if any(row.cells.values()):
            rows.append(row)
        else:
            empty += 1
    if empty:
        mistakes.note(f"{empty} empty row{'s' if empty > 1 else ''} skipped")
    columns.shorten_numbers(rows)
    for note in columns.notes():
        mistakes.note(note)
    return TextTable(columns.names, rows)


class _Columns:
    """Maps the columns of one file to known names, and finds those that hold floats."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = known_spellings(known)
        self._names: dict[str, str | None] = {}  # name in the file -> our name, None if skipped
        self._first: dict[str, Any] = {}  # a value of each skipped column
        self._decimals: dict[str, bool] = {}  # text columns: whether all values look like pandas' floats
        self._shortened: set[str] = set()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name in self._names.values() if name is not None)

    def name_of(self, given: str, value: Any) -> str | None:
        if given not in self._names:
            plain = given.strip()
            known = self._known.get(folded(plain))
            self._names[given] = known or (None if _INDEX.fullmatch(plain) else plain)
        name = self._names[given]
        if name is None and self._first.get(given) in (None, ""):
            self._first[given] = value
        return name

    def look_at(self, name: str, value: Any) -> None:
        """Record the form of a value: pandas turns 1 into `1.0` in a column with an empty cell."""
        if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
            self._shortened.add(name)
        elif isinstance(value, str) and self._decimals.get(name, True) and (text := value.strip()):
            self._decimals[name] = bool(_DECIMAL.fullmatch(text)) and repr(float(text)) == text

    def shorten_numbers(self, rows: Collection[TextRow]) -> None:
        """Drop `.0` from integers in text columns that contain only floats as pandas writes them."""
        for name in (name for name, all_of_them in self._decimals.items() if all_of_them):
            for row in rows:
                text = row.cells.get(name)
                if isinstance(text, str) and text.strip().endswith(".0"):
                    row.cells[name] = text.strip().removesuffix(".0")
                    self._shortened.add(name)

    def notes(self) -> Iterator[str]:
        """Notes on skipped columns, columns in another spelling, and shortened numbers."""
        for given in (given for given, name in self._names.items() if name is None):
            first = self._first.get(given)
            why = "empty" if first in (None, "") else f"an index (its first value is {reprlib.repr(first)})"
            yield f"column {given!r} skipped: {why}"
        renamed = [
            f"{given!r} as {name}" for given, name in self._names.items() if name and given.strip() != name
        ]
        if renamed:
            yield f"columns read in another spelling: {', '.join(renamed)}"
        if self._shortened:
            columns = ", ".join(sorted(self._shortened))
            yield f"whole numbers are read without '.0' (1.0 is 1) in {columns}"


def known_spellings(known: Collection[str]) -> Mapping[str, str]:
    """The known columns by their `folded` names."""
    return {folded(name): name for name in known}


def folded(name: str) -> str:
    """A column name without case, spaces and punctuation: `Sample ID` gives `sampleid`."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def text_of(value: Any, where: str, column: str, mistakes: Mistakes, *, strip: bool = True) -> Any:
    """A cell as text, a list of texts, or None if empty; values with no text form are added to `mistakes`."""
    if isinstance(value, list | tuple):
        if any(isinstance(item, list | tuple) for item in value):
            mistakes.add(where, f"{column} is a list of lists, not text")
            return None
        items = [text_of(item, where, column, mistakes, strip=strip) for item in value]
        return [item for item in items if item is not None]
    text = _as_text(value)
    if text is not None and len(text) > _LONGEST:
        mistakes.add(where, f"{column} has {len(text):,} characters, more than {_LONGEST:,}: {text[:40]!r}")
        return None
    if text is None:
        if value is not None and value == value:
            mistakes.add(where, f"{column} is {type(value).__name__} {reprlib.repr(value):.40}, not text")
        return None
    if _UNFIT.search(text):
        mistakes.add(where, f"{column} holds a control character or broken text: {text[:60]!r}")
        return None
    if not text.strip():
        return None
    return text.strip() if strip else text


def _as_text(value: Any) -> str | None:
    """Text, numbers and booleans as text; None for other types, and for NaN."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite():
        digits = f"{value:f}"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    if isinstance(value, float) and math.isfinite(value):
        return repr(value).removesuffix(".0")
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")  # older programs write text columns of Parquet as plain bytes
        except UnicodeDecodeError:
            return None
    return None


def _jsonl_rows(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removeprefix("\ufeff")  # byte-order mark of a concatenated file
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
    """Parse JSON. Raises ValueError for invalid JSON, duplicate keys, and nesting beyond Python's limit."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"duplicate key in {sorted(key for key, _ in pairs)}")
    return value
