"""The optional category list: names, aliases, parents and notes of the categories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from data.manifest.doubts import doubtful_aliases, doubtful_lines
from data.manifest.ids import category_ids, is_blank, name_key, normal_spelling
from data.sample import Category
from data.tables.read import Mistakes, TextRow, TextTable, folded, read_table, read_text, text_of

COLUMNS = ("category_id", "name", "aliases", "parent", "notes")


def read_categories(path: Path, *, notes: list[str] | None = None) -> tuple[Category, ...]:
    """The categories of a CSV, TSV, JSONL or Parquet table, or of a text file with one name a line.

    Columns: `name`; optionally `category_id` (default: derived from the names, see `data.manifest.ids`),
    `aliases` (a list, or text separated by `|`), `parent`, `notes`. Remarks on the file are added to `notes`.
    Raises one ManifestError that lists every mistake, such as a name in two rows.
    """
    mistakes = Mistakes(path)
    is_text = path.suffix.lower() == ".txt"
    table = _text_lines(path, mistakes) if is_text else read_table(path, mistakes, known=COLUMNS)
    for column in sorted(table.columns - set(COLUMNS)):
        mistakes.add("header", f"unknown column {column!r}", given=column, known=COLUMNS)
    if table.rows and "name" not in table.columns:
        mistakes.add("header", f"no column 'name'; it has {', '.join(sorted(table.columns))}")
        mistakes.raise_if_any()
    read = [(row, each) for row in table.rows if (each := _category(row, mistakes)) is not None]
    ids = category_ids(name_key(each.name) for _, each in read if not each.category_id)
    found: dict[str, Category] = {}
    names: dict[str, Category] = {}  # by key
    for row, category in read:
        key = name_key(category.name)
        if not category.category_id:
            category = replace(category, category_id=ids[key])
        twin = found.get(category.category_id)
        if key in names:
            same = names[key]
            what = f"the name {category.name!r} is already that of {same.category_id!r}"
            if same.name != category.name:
                what += f", {same.name!r} (names that differ only in capitals or spaces are the same)"
            mistakes.add(row.where, what)
        elif twin is not None:
            mistakes.add(
                row.where,
                f"category_id {category.category_id!r} of {category.name!r} is already that of {twin.name!r}",
            )
        found.setdefault(category.category_id, category)
        names.setdefault(key, category)
    if not table.rows:
        mistakes.add("list", "no category in it")
    mistakes.raise_if_any()
    if notes is not None:
        doubts = doubtful_aliases(tuple(found.values()), name_key)
        notes += [f"{path.name}: {note}" for note in (*mistakes.notes, *doubts)]
    return tuple(found.values())


def _text_lines(path: Path, mistakes: Mistakes) -> TextTable:
    """One name a line; or Excel's "Unicode text", a table with tabs, recognised by its header."""
    lines = read_text(path).split("\n")
    header = {folded(cell) for cell in lines[0].split("\t")}
    if "\t" in lines[0] and "name" in header:
        return read_table(path, mistakes, known=COLUMNS, ending=".tsv")
    for note in doubtful_lines([line.strip() for line in lines if line.strip()]):
        mistakes.note(note)
    cells = ((f"line {number}", line) for number, line in enumerate(lines, start=1) if line.strip())
    rows = [TextRow(where, {"name": text_of(line, where, "name", mistakes)}) for where, line in cells]
    return TextTable(frozenset({"name"}), rows)


def _category(row: TextRow, mistakes: Mistakes) -> Category | None:
    cells = row.cells
    name = cells.get("name")
    if not isinstance(name, str):
        mistakes.add(row.where, "no name")
        return None
    for column in ("category_id", "parent", "notes"):
        if isinstance(cells.get(column), list):
            mistakes.add(row.where, f"{column} is a list, not text")
            return None
    if is_blank(name):
        mistakes.add(row.where, f"the name {name!r} has no visible character")
        return None
    category_id = cells.get("category_id") or ""  # "" until ids are derived from all names
    return Category(
        category_id,
        normal_spelling(name),
        _aliases(cells.get("aliases")),
        cells.get("parent"),
        cells.get("notes"),
    )


def _aliases(cell: Any) -> tuple[str, ...]:
    parts = cell.split("|") if isinstance(cell, str) else cell or ()
    return tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())
