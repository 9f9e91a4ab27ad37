"""Looking into a knowledge base: DuckDB over its Parquet files, read-only.

Views: `v_categories`, `v_samples`, `v_given_descriptions`, `v_descriptions` (of categories and samples),
`v_rejects`, `v_controls`, `v_centers`, and, with the columns id, group and vector, `v_category_vectors`,
`v_sample_text_vectors`, `v_control_vectors`, `v_sample_vectors` and `v_zero_shot_vectors`. A table that no
stage has written yet is an empty view.

The same questions can be asked of the files without this code: see docs/duckdb.md.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from data.errors import InputError, KnowledgeBaseError
from kb_builder.budget import written_off
from kb_builder.ledger import read_ledger
from kb_builder.schemas import (
    CATEGORIES,
    CENTERS,
    CONTROLS,
    DESCRIPTIONS,
    GIVEN_DESCRIPTIONS,
    REJECTS,
    SAMPLES,
)
from kb_builder.store import vector_schema

_TABLES: dict[str, tuple[str, pa.Schema]] = {
    "v_categories": ("categories.parquet", CATEGORIES),
    "v_samples": ("samples.parquet", SAMPLES),
    "v_given_descriptions": ("given_descriptions.parquet", GIVEN_DESCRIPTIONS),
    "v_descriptions": ("descriptions/*/*.parquet", DESCRIPTIONS),
    "v_rejects": ("rejects/*.parquet", REJECTS),
    "v_controls": ("controls.parquet", CONTROLS),
    "v_centers": ("centers.parquet", CENTERS),
}
# View: which encoder of embeddings/encoders.json, which of its folders.
_VECTORS: dict[str, tuple[str, str]] = {
    "v_category_vectors": ("text", "category_texts"),
    "v_sample_text_vectors": ("text", "sample_texts"),
    "v_control_vectors": ("text", "controls"),
    "v_sample_vectors": ("samples", "samples"),
    "v_zero_shot_vectors": ("zero_shot", "samples"),
}
VIEWS: tuple[str, ...] = (*_TABLES, *_VECTORS)
_READING = {"StatementType.SELECT", "StatementType.EXPLAIN"}
_LONG_LIST = 8  # a list of more values than that is printed as its beginning and its length


@dataclass(frozen=True)
class Answer:
    """The answer to a question, as columns and rows; `str` of it is a table for the terminal."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __str__(self) -> str:
        if not self.rows:
            return "(no rows)"
        cells = [self.columns, *(tuple(_printable(value) for value in row) for row in self.rows)]
        widths = [max(len(line[at]) for line in cells) for at in range(len(self.columns))]
        numeric = [isinstance(value, int | float) and not isinstance(value, bool) for value in self.rows[0]]
        padded = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in cells
        ]
        return "\n".join([padded[0], "  ".join("-" * width for width in widths), *padded[1:]])


@dataclass(frozen=True)
class Page:
    """Titled answers."""

    sections: tuple[tuple[str, Answer], ...]

    def __str__(self) -> str:
        return "\n\n".join(f"{title}\n{answer}" for title, answer in self.sections)


@contextmanager
def connect(kb: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB with the views above over `kb`, shut off from every file, network and setting.

    The views are handed over as Arrow data sets, so nothing else is within reach: no other file can be read,
    and none can be written. Raises KnowledgeBaseError where `kb` is no knowledge base or a file is damaged.
    """
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    options: dict[str, str | bool | int | float | list[str]] = {"enable_external_access": "false"}
    with closing(duckdb.connect(config=options)) as connection:
        # Otherwise a query could name any Python variable of the caller's.
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET TimeZone = 'UTC'")
        for name, (pattern, schema) in _TABLES.items():
            connection.register(name, _data_set(sorted(kb.glob(pattern)), schema))
        encoders = _encoders(kb)
        for name, (encoder, folder) in _VECTORS.items():
            place = encoders.get(encoder)
            parts = sorted((kb / "embeddings" / place / folder).glob("*.parquet")) if place else []
            connection.register(name, _data_set(parts, vector_schema(1)))
        connection.execute("SET lock_configuration = true")
        try:
            yield connection
        except duckdb.Error as error:
            raise KnowledgeBaseError(f"{kb} holds a damaged table: {_first_line(error)}") from None


def sql(kb: Path, query: str) -> Answer:
    """Run one read-only SQL statement over the views.

    Raises InputError for what is not one SELECT (or EXPLAIN, DESCRIBE, SHOW, SUMMARIZE), and for SQL that
    DuckDB refuses, with its reason.
    """
    with connect(kb) as connection:
        try:
            statements = connection.extract_statements(query)
            if len(statements) != 1 or str(statements[0].type) not in _READING:
                raise InputError(
                    "give one statement that reads: SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE"
                )
            return _ask(connection, query)
        except duckdb.Error as error:
            views = (
                f"; the views are {', '.join(VIEWS)}" if isinstance(error, duckdb.CatalogException) else ""
            )
            raise InputError(f"{_first_line(error)}{views}") from None


def stats(kb: Path) -> Page:
    """What a knowledge base holds: texts per category and model, rejects, requests and dollars, vectors."""
    with connect(kb) as connection:
        sections = [(title, _ask(connection, query)) for title, query in _STATS]
    sections.append(("requests in the ledger", _requests(kb)))
    sections.append(("embeddings", _embeddings(kb)))
    return Page(tuple(sections))


def show(kb: Path, category: str) -> Page:
    """A category's texts, its rejected texts by reason, and its centers.

    `category` is an id, a name or an alias, in any case. Raises InputError with a suggestion where there is
    none like it.
    """
    with connect(kb) as connection:
        known = _ask(
            connection, "SELECT category_id, name, aliases, parent, notes FROM v_categories ORDER BY 1"
        )
        row = _find(known.rows, category)
        sections = [
            ("category", Answer(known.columns, (row,))),
            *((title, _ask(connection, query, [row[0]])) for title, query in _SHOW),
        ]
    return Page(tuple(sections))


_STATS: tuple[tuple[str, str], ...] = (
    (
        "samples",
        """
        SELECT modality, count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'val') AS val,
               count(*) FILTER (split = 'test') AS test, count(DISTINCT category_id) AS categories,
               count(*) FILTER (category_id IS NULL) AS without_category
        FROM v_samples GROUP BY modality ORDER BY modality
        """,
    ),
    (
        "samples that were turned away",
        """
        SELECT stage, count(*) AS samples, min_by(reason, sample_id) AS the_first
        FROM v_rejects GROUP BY stage ORDER BY stage
        """,
    ),
    (
        "category descriptions per category and model",
        """
        SELECT category_id, model_resolved AS model, count(*) FILTER (status = 'ok') AS ok,
               count(*) FILTER (status <> 'ok') AS rejected
        FROM v_descriptions WHERE kind = 'category' GROUP BY ALL ORDER BY ALL
        """,
    ),
    (
        "sample descriptions per modality and model",
        """
        SELECT modality, model_resolved AS model, count(*) FILTER (status = 'ok') AS ok,
               count(DISTINCT text_norm_hash) FILTER (status = 'ok') AS different,
               count(*) FILTER (status <> 'ok') AS rejected
        FROM v_descriptions WHERE kind = 'sample' GROUP BY ALL ORDER BY ALL
        """,
    ),
    (
        "rejected descriptions by reason",
        """
        SELECT kind, status AS reason, count(*) AS rows
        FROM v_descriptions WHERE status <> 'ok' GROUP BY ALL ORDER BY ALL
        """,
    ),
    (
        "controls",
        """
        SELECT control, count(DISTINCT category_id) AS categories, count(*) AS texts
        FROM v_controls GROUP BY control ORDER BY control
        """,
    ),
    (
        "embedding centers",
        """
        SELECT rule, guided_by, encoder, count(DISTINCT category_id) AS categories, count(*) AS centers
        FROM v_centers GROUP BY ALL ORDER BY ALL
        """,
    ),
)

_SHOW: tuple[tuple[str, str], ...] = (
    (
        "samples",
        """
        SELECT modality, count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'val') AS val,
               count(*) FILTER (split = 'test') AS test
        FROM v_samples WHERE category_id = ? GROUP BY modality ORDER BY modality
        """,
    ),
    (
        "descriptions",
        """
        SELECT aspect, model_resolved AS model, text FROM v_descriptions
        WHERE kind = 'category' AND category_id = ? AND status = 'ok' ORDER BY aspect, text
        """,
    ),
    (
        "rejected descriptions by reason",
        """
        SELECT status AS reason, count(*) AS rows, min_by(text, row_id) AS the_first FROM v_descriptions
        WHERE kind = 'category' AND category_id = ? AND status <> 'ok' GROUP BY status ORDER BY status
        """,
    ),
    (
        "embedding centers",
        """
        SELECT c.rank, round(c.score, 4) AS score, c.rule, c.guided_by, d.text
        FROM v_centers c LEFT JOIN v_descriptions d USING (row_id) WHERE c.category_id = ? ORDER BY c.rank
        """,
    ),
)


def _ask(connection: duckdb.DuckDBPyConnection, query: str, values: list[Any] | None = None) -> Answer:
    result = connection.execute(query, values or [])
    columns = tuple(str(column[0]) for column in result.description or ())
    return Answer(columns, tuple(tuple(row) for row in result.fetchall()))


def _data_set(files: list[Path], schema: pa.Schema) -> Any:
    """The rows of several Parquet files as one Arrow data set; an empty table where there is no file.

    Columns are those of `schema`; only the length of vectors is the files' own.
    """
    found = schema
    for file in files:
        try:
            found = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise KnowledgeBaseError(f"{file} is damaged: {_first_line(error)}") from None
        if found.names != schema.names:
            raise KnowledgeBaseError(f"{file} has other columns than this version writes; build it again")
    if not files:
        return schema.empty_table()
    return pyarrow.dataset.dataset([str(file) for file in files], schema=found)


def _encoders(kb: Path) -> dict[str, str | None]:
    path = kb / "embeddings" / "encoders.json"
    if not path.is_file():
        return {}
    encoders: dict[str, str | None] = json.loads(path.read_text(encoding="utf-8"))
    return encoders


def _requests(kb: Path) -> Answer:
    """Requests by who was asked, with what is known of their cost; a sum leaves unknown costs out.

    The last line is what calls that broke off may have cost beside that, where a budget counted it.
    """
    columns = (
        "provider",
        "source",
        "answered",
        "failed",
        "calls",
        "known_cost_usd",
        "answers_of_unknown_cost",
    )
    query = """
        SELECT provider, source, count(answer), count(error), sum(attempts), sum(cost_usd),
               count(*) FILTER (WHERE answer IS NOT NULL AND cost_usd IS NULL)
        FROM entries GROUP BY provider, source ORDER BY provider, source
    """
    with read_ledger(kb) as ledger:
        if ledger is None:
            return Answer(columns, ())
        found = ledger.read(lambda entries: entries.execute(query).fetchall())
        if off := ledger.read(written_off):
            found.append(("(broke off)", "", None, None, None, off, None))
    return Answer(columns, tuple(found))


def _embeddings(kb: Path) -> Answer:
    """Rows of every folder of vectors, from the files' footers alone."""
    rows = []
    for role, encoder in sorted(_encoders(kb).items()):
        if encoder is None:
            continue
        for folder in sorted(path for path in (kb / "embeddings" / encoder).iterdir() if path.is_dir()):
            files = sorted(folder.glob("*.parquet"))
            if files:
                count = sum(pq.read_metadata(file).num_rows for file in files)
                dim = pq.read_schema(files[0]).field("vector").type.list_size
                rows.append((role, encoder, folder.name, count, dim))
    return Answer(("role", "encoder", "table", "rows", "dim"), tuple(rows))


def _find(rows: tuple[tuple[Any, ...], ...], category: str) -> tuple[Any, ...]:
    wanted = category.strip().casefold()
    names: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        for name in (row[0], row[1], *row[2]):
            names.setdefault(name.casefold(), row)
    if wanted not in names:
        close = dict.fromkeys(str(names[name][1]) for name in difflib.get_close_matches(wanted, names, n=3))
        meant = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {len(rows)}"
        raise InputError(f"there is no category {category!r}; {meant}")
    return names[wanted]


def _printable(value: Any) -> str:
    """A cell on one line. Texts come from models and strangers: control characters are shown, not sent."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        shown = ", ".join(_printable(item) for item in value[:_LONG_LIST])
        return f"[{shown}]" if len(value) <= _LONG_LIST else f"[{shown}, ... {len(value)} values]"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
