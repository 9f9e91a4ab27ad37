"""Answers to questions about a knowledge base: tables for the terminal, with the SQL that gave them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from data.show import number, visible

_LONG_LIST = 8  # a list of more values than that is printed as its beginning and its length


@dataclass(frozen=True)
class QueryResult:
    """The answer to a question, as columns and rows; `str` of it is a table for the terminal.

    `query` is the SQL that gave it, to be taken elsewhere; empty where there was none. `more`: there are more
    rows than these. `counts`: its numbers are counts and amounts for people to read, with thousands apart;
    elsewhere a number may be a name or a year, and stands as it is.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    query: str = ""
    more: bool = False
    counts: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if not self.rows:
            return "(no rows)"
        cells = [
            tuple(map(printable, self.columns)),
            *(tuple(printable(value, counts=self.counts) for value in row) for row in self.rows),
        ]
        widths = [max(len(line[at]) for line in cells) for at in range(len(self.columns))]
        numeric = [any(map(_is_number, column)) for column in zip(*self.rows, strict=True)]
        padded = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in cells
        ]
        lines = [padded[0], "  ".join("-" * width for width in widths), *padded[1:]]
        if self.more:
            lines.append(
                f"(the first {len(self.rows):,} rows, and there are more: page with LIMIT and OFFSET, or ask"
                " DuckDB itself, by `unibind kb views`)"
            )
        return "\n".join(lines)

    def told(self, *, with_sql: bool) -> str:
        """The table, below the SQL that gave it where that is wanted."""
        query = self.query.strip().rstrip(";")
        return f"{query};\n\n{self}" if with_sql and query else str(self)


@dataclass(frozen=True)
class Page:
    """Titled answers."""

    sections: tuple[tuple[str, QueryResult], ...]

    def __str__(self) -> str:
        return self.told(with_sql=False)

    def told(self, *, with_sql: bool) -> str:
        """Every section below its title, and below the SQL that gave it where that is wanted."""
        return "\n\n".join(f"{title}\n{answer.told(with_sql=with_sql)}" for title, answer in self.sections)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def printable(value: Any, *, counts: bool = False) -> str:
    """A cell on one line. Texts come from models and strangers: control characters are shown, not sent."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        shown = ", ".join(printable(item, counts=counts) for item in value[:_LONG_LIST])
        return f"[{shown}]" if len(value) <= _LONG_LIST else f"[{shown}, ... {len(value):,} values]"
    if counts and _is_number(value):
        return number(value)
    return visible(f"{value:.6g}" if isinstance(value, float) else value)
