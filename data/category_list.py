"""The optional category list: the classes, what else they are called, what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.paths import slug
from data.sample import Category
from data.tables import Mistakes, Row, Table, read_table, read_text

COLUMNS = ("category_id", "name", "aliases", "parent", "notes")


def read_categories(path: Path) -> tuple[Category, ...]:
    """The categories of a CSV, JSONL or Parquet table, or of a text file with one name a line.

    Columns: `name`; optionally `category_id` (default: the name's slug, see `data.paths.slug`), `aliases` (a
    list, or text with `|` between), `parent`, `notes`. Raises one ManifestError with every mistake.
    """
    mistakes = Mistakes(path)
    table = _text_lines(path) if path.suffix.lower() == ".txt" else read_table(path, mistakes)
    for column in sorted(table.columns - set(COLUMNS)):
        mistakes.add("header", f"unknown column {column!r}", given=column, known=COLUMNS)
    if table.rows and "name" not in table.columns:
        mistakes.add("header", f"no column 'name'; it has {', '.join(sorted(table.columns))}")
        mistakes.raise_if_any()
    found: dict[str, Category] = {}
    names: dict[str, str] = {}
    for row in table.rows:
        category = _category(row, mistakes)
        if category is None:
            continue
        twin = found.get(category.category_id)
        if twin is not None:
            mistakes.add(
                row.where,
                f"category_id {category.category_id!r} of {category.name!r} is already that of {twin.name!r}",
            )
        elif category.name in names:
            mistakes.add(row.where, f"the name {category.name!r} is already that of {names[category.name]!r}")
        found.setdefault(category.category_id, category)
        names.setdefault(category.name, category.category_id)
    if not table.rows:
        mistakes.add("list", "no category in it")
    mistakes.raise_if_any()
    return tuple(found.values())


def _text_lines(path: Path) -> Table:
    lines = enumerate(read_text(path).splitlines(), start=1)
    rows = [Row(f"line {number}", {"name": line.strip()}) for number, line in lines if line.strip()]
    return Table(frozenset({"name"}), rows)


def _category(row: Row, mistakes: Mistakes) -> Category | None:
    cells = row.cells
    name = cells.get("name")
    if not isinstance(name, str):
        mistakes.add(row.where, "no name")
        return None
    for column in ("category_id", "parent", "notes"):
        if isinstance(cells.get(column), list):
            mistakes.add(row.where, f"{column} is a list, not text")
            return None
    category_id = cells.get("category_id") or slug(name)
    if not category_id:
        mistakes.add(row.where, f"{name!r} has no letter or digit to make an id from; give a category_id")
        return None
    return Category(
        category_id, name, _aliases(cells.get("aliases")), cells.get("parent"), cells.get("notes")
    )


def _aliases(cell: Any) -> tuple[str, ...]:
    parts = cell.split("|") if isinstance(cell, str) else cell or ()
    return tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())
