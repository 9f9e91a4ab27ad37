"""Overviews of a knowledge base, `unibind kb stats` and `unibind kb show`: titled results with their SQL."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

from data.errors import InputError
from kb_builder.ask.ledger import read_ledger
from kb_builder.ask.write_offs import written_off
from kb_builder.browse.answer import Page, QueryResult
from kb_builder.browse.query import connect, run_query
from kb_builder.browse.sources import quoted


def stats(kb: Path) -> Page:
    """The content of a knowledge base: samples, texts per category and model, rejects, vectors, requests."""
    with connect(kb) as connection:
        sections = [(title, run_query(connection, dedent(query).strip())) for title, query in _STATS]
    sections.append((_LEDGER, _requests(kb)))
    return Page(tuple((title, replace(answer, counts=True)) for title, answer in sections))


def show(kb: Path, category: str) -> Page:
    """A category's texts, its rejected texts by reason, and its centers.

    `category` is an id, a name or an alias, in any case. Raises InputError, with suggestions, if there is no
    such category.
    """
    with connect(kb, vectors=False) as connection:
        known = run_query(
            connection,
            "SELECT category_id, name, aliases, parent, notes FROM v_categories ORDER BY category_id",
        )
        row = _find(known.rows, category)
        sections = [
            (title, run_query(connection, dedent(query).strip().replace("$category", quoted(row[0]))))
            for title, query in _SHOW
        ]
    return Page(tuple((title, replace(answer, counts=True)) for title, answer in sections))


_LEDGER = "requests in the ledger"
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
        "rejected samples",
        """
        SELECT stage, count(*) AS samples, min_by(reason, sample_id) AS the_first
        FROM v_rejects GROUP BY stage ORDER BY stage
        """,
    ),
    (
        "category descriptions per category and model",
        """
        SELECT category_id, source, model_resolved AS model, count(*) FILTER (status = 'ok') AS ok,
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
    (
        "vectors",
        """
        SELECT coalesce(e.role, 'not used by any role') AS role, e.folder, s."table", s.rows, e.dim, e.dtype,
               s.current, s.stale, s.missing
        FROM v_encoders AS e LEFT JOIN (
            SELECT role, "table", count(*) FILTER (state <> 'missing') AS rows,
                   count(*) FILTER (state = 'current') AS current,
                   count(*) FILTER (state = 'stale') AS stale, count(*) FILTER (state = 'missing') AS missing
            FROM v_vector_state GROUP BY ALL
        ) AS s ON s.role = e.role
        ORDER BY e.role NULLS LAST, e.folder, s."table"
        """,
    ),
)

_SHOW: tuple[tuple[str, str], ...] = (
    (
        "category",
        "SELECT category_id, name, aliases, parent, notes FROM v_categories WHERE category_id = $category",
    ),
    (
        "samples",
        """
        SELECT modality, count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'val') AS val,
               count(*) FILTER (split = 'test') AS test
        FROM v_samples WHERE category_id = $category GROUP BY modality ORDER BY modality
        """,
    ),
    (
        "descriptions",
        """
        SELECT aspect, source, provider, model_resolved AS model, text FROM v_descriptions
        WHERE kind = 'category' AND category_id = $category AND status = 'ok' ORDER BY aspect, text
        """,
    ),
    (
        "rejected descriptions by reason",
        """
        SELECT status AS reason, count(*) AS rows, min_by(text, row_id) AS the_first FROM v_descriptions
        WHERE kind = 'category' AND category_id = $category AND status <> 'ok' GROUP BY status ORDER BY status
        """,
    ),
    (
        "embedding centers",
        """
        SELECT c.rank, round(c.score, 4) AS score, c.rule, c.guided_by, coalesce(d.text, n.text) AS text
        FROM v_centers c LEFT JOIN v_descriptions d USING (row_id) LEFT JOIN v_controls n USING (row_id)
        WHERE c.category_id = $category ORDER BY c.rank
        """,
    ),
)


def _requests(kb: Path) -> QueryResult:
    """Requests by provider and source, with their known costs; unknown costs are not in the sum.

    The last row, if a budget is in use, is the worst-case cost of calls that ended without an answer.
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
    query = dedent("""\
        -- SQLite, in ledger.sqlite
        SELECT provider, source, count(answer), count(error), sum(attempts), sum(cost_usd),
               count(*) FILTER (WHERE answer IS NOT NULL AND cost_usd IS NULL)
        FROM entries GROUP BY provider, source ORDER BY provider, source""")
    with read_ledger(kb, checked=True) as ledger:
        if ledger is None:
            return QueryResult(columns, (), query)
        found = ledger.read(lambda entries: entries.execute(query).fetchall())
        if off := ledger.read(written_off):
            found.append(("(broke off)", "", None, None, None, off, None))
    return QueryResult(columns, tuple(found), query)


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
