"""CSV and TSV as Excel, LibreOffice, pandas and text editors write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from data.errors import ManifestError
from data.tables.mistakes import Mistakes
from data.tables.text_files import read_text

_SEPARATORS = (",", ";", "\t")
_NAMES = {",": "a comma", ";": "';'", "\t": "a tab"}
_SEP_LINE = re.compile(r'"?sep=([^\n])"?[^\S\n]*(?:\n|$)', re.IGNORECASE)  # Excel's own first line
_OTHER_SEPARATOR = re.compile(r"[,;\t|:^~]")
_HEAD = 1 << 20  # characters within which the header must end


class Rows(Protocol):
    """The type of `csv.reader(…)`, which has no public name."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


def delimited_rows(
    path: Path, mistakes: Mistakes, is_known: Callable[[str], bool], *, ending: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV or TSV file: the place of each (`line 7`), and its cells by column name.

    The separator is that of Excel's `sep=` line, else the one of comma, semicolon and tab that gives the
    header the most known columns. Empty columns without a name are dropped; unnamed columns before the first
    named one are an index and are called `Unnamed: 0`, as pandas does. Empty cells beyond the header are
    dropped. Raises ManifestError where the file is not valid CSV.
    """
    text = read_text(path)
    line_of_text = 0
    declared = _SEP_LINE.match(text)
    if declared:
        separator, text, line_of_text = declared[1], text[declared.end() :], 1
    else:
        separator = _separator(text[:_HEAD], ending, is_known)
        if separator != _usual(ending):
            mistakes.note(f"the columns are separated by {_NAMES[separator]}")
    reader = _reader(text, separator)
    try:
        header = [name.strip() for name in next((row for row in reader if _has_text(row)), [])]
        _check_header(header, is_known, path, reader.line_num + line_of_text)
        named = [number for number, name in enumerate(header) if name]
        unnamed = [number for number, name in enumerate(header) if not name and number > named[0]]
        for number in range(named[0] if named else 0):
            header[number] = f"Unnamed: {number}"
        if unnamed:
            mistakes.note(f"{len(unnamed)} column{_s(unnamed)} without a name or a value skipped")
        needed = named[-1] + 1 if named else 0
        cut = 0
        swallowing: list[str] = []
        line = reader.line_num + 1
        for cells in reader:
            where, start = f"line {line + line_of_text}", line
            line = reader.line_num + 1
            if len(cells) > len(header) and not _has_text(cells[len(header) :]):
                cut += 1
                del cells[len(header) :]
            if cells and not _has_text(cells):
                yield where, dict.fromkeys(filter(None, header), "")
            elif needed <= len(cells) <= len(header):
                for number in unnamed:
                    if number < len(cells) and cells[number].strip():
                        what = (
                            f"{cells[number][:60]!r} in column {number + 1}, which has no name in the header"
                        )
                        mistakes.add(where, what)
                if reader.line_num > start and needed > 2 and _holds_a_row(cells[:needed], separator):
                    swallowing.append(where)
                yield where, {name: cell for name, cell in zip(header, cells, strict=False) if name}
            elif cells:
                mistakes.add(where, _wrong_count(cells, header, separator))
    except csv.Error as error:
        hint = "; a double quote inside a cell is written twice" if "expected after" in str(error) else ""
        raise ManifestError(
            f"{path}: line {reader.line_num + line_of_text}: not valid CSV: {error}{hint}"
        ) from None
    if swallowing:
        others = f" and {len(swallowing) - 1} more" if len(swallowing) > 1 else ""
        mistakes.note(
            f"{swallowing[0]}{others}: a cell in double quotes goes on over several lines, one of which looks"
            " like a row of its own; close the quote where the cell ends"
        )
    if cut:
        mistakes.note(
            f"{cut} row{'s' if cut > 1 else ''} with empty cells beyond the header: these cells are ignored"
        )


def _reader(text: str, separator: str) -> Rows:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)


def _usual(ending: str) -> str:
    return "\t" if ending == ".tsv" else ","


def _separator(head: str, ending: str, is_known: Callable[[str], bool]) -> str:
    """The separator that gives the header the most known columns, then the most columns."""

    def columns(separator: str) -> tuple[int, int]:
        try:
            row = next((row for row in _reader(head, separator) if _has_text(row)), [])
        except csv.Error:
            return -1, 0
        return sum(map(is_known, row)), len(row)

    return max(sorted(_SEPARATORS, key=lambda each: each != _usual(ending)), key=columns)


def _check_header(header: list[str], is_known: Callable[[str], bool], path: Path, line: int) -> None:
    names = [name for name in header if name]
    if len(set(names)) < len(names):
        raise ManifestError(f"{path}: line {line}: duplicate column name in {', '.join(names)}")
    if names and names[0].startswith("#") and not is_known(names[0]):
        raise ManifestError(
            f"{path}: line {line}: begins with '#', but the first line names the columns; remove comments"
        )
    if len(names) == 1 and not is_known(names[0]) and (found := _OTHER_SEPARATOR.search(names[0])):
        raise ManifestError(
            f"{path}: line {line}: the header is one cell, {names[0]!r:.100}, with {found[0]!r} in it; "
            "separate the columns by a comma, ';' or a tab"
        )


def _wrong_count(cells: list[str], header: list[str], separator: str) -> str:
    what = f"{len(cells)} cells, but the header has {len(header)} column{'s' if len(header) > 1 else ''}"
    if len(cells) == len(header) + 1 and cells[0].strip().isdigit():
        return f"{what}; if the first cell is a row number, as R writes it, name its column `index`"
    if len(cells) > len(header):
        return f"{what}; put a cell that holds {_NAMES.get(separator, repr(separator))} into double quotes"
    other = next((each for each in _SEPARATORS if each != separator and each in "".join(cells)), None)
    if other and len(cells) == 1:
        return f"{what}; the header is separated by {_NAMES.get(separator, repr(separator))}, this row is not"
    return what


def _holds_a_row(cells: list[str], separator: str) -> bool:
    """Whether a further line of a cell has as many cells itself, as where a quote was never closed."""
    further = (line for cell in cells if "\n" in cell for line in cell.split("\n")[1:])
    return any(line.count(separator) == len(cells) - 1 for line in further)


def _has_text(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _s(things: list[int]) -> str:
    return "s" if len(things) > 1 else ""


def all_records(
    text: str, is_known: Callable[[str], bool], *, ending: str
) -> tuple[str, str, Iterator[tuple[str, list[str]]]]:
    """All that is needed to write the file again: Excel's `sep=` line (or ""), the separator, and every
    record with its place (`line 7`), including the header and empty records."""
    declared = _SEP_LINE.match(text)
    head = declared[0] if declared else ""
    separator = declared[1] if declared else _separator(text[:_HEAD], ending, is_known)

    def records() -> Iterator[tuple[str, list[str]]]:
        reader = _reader(text[len(head) :], separator)
        line = 1
        for cells in reader:
            yield f"line {line + bool(head)}", cells
            line = reader.line_num + 1

    return head, separator, records()
