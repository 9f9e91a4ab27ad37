"""Query results as tables for the terminal, with the SQL that produced them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from data.show import aligned, number, visible

_LONG_LIST = 8  # a longer list is printed as its beginning and its length


@dataclass(frozen=True)
class QueryResult:
    """The result of a query, as columns and rows; `str` of it is a table for the terminal.

    `query` is the SQL that produced it, empty if none did. `more`: the result has more rows than these.
    `counts`: numbers are counts and amounts, printed with thousands separators; otherwise a number may be a
    name or a year and is printed as it is.
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
        rule = tuple("-" * max(map(len, column)) for column in zip(*cells, strict=True))
        values = enumerate(zip(*self.rows, strict=True))
        words = [at for at, column in values if not any(map(_is_number, column))]
        lines = aligned([cells[0], rule, *cells[1:]], left=words)
        if self.more:
            lines.append(
                f"(the first {len(self.rows):,} rows; there are more: page with LIMIT and OFFSET, or use"
                " DuckDB itself, with `unibind kb views`)"
            )
        return "\n".join(lines)

    def to_text(self, *, with_sql: bool) -> str:
        """The table for the terminal, with `with_sql` below the SQL that produced it."""
        query = self.query.strip().rstrip(";")
        return f"{query};\n\n{self}" if with_sql and query else str(self)


@dataclass(frozen=True)
class Page:
    """Query results with a title each."""

    sections: tuple[tuple[str, QueryResult], ...]

    def __str__(self) -> str:
        return self.to_text(with_sql=False)

    def to_text(self, *, with_sql: bool) -> str:
        """Every section below its title, with `with_sql` below its SQL too."""
        return "\n\n".join(f"{title}\n{result.to_text(with_sql=with_sql)}" for title, result in self.sections)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def printable(value: Any, *, counts: bool = False) -> str:
    """A cell on one line. Texts are untrusted: control characters are printed as escapes."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        shown = ", ".join(printable(item, counts=counts) for item in value[:_LONG_LIST])
        return f"[{shown}]" if len(value) <= _LONG_LIST else f"[{shown}, ... {len(value):,} values]"
    if counts and _is_number(value):
        return number(value)
    return visible(f"{value:.6g}" if isinstance(value, float) else value)
