"""A read-only SQL prompt over the views of the knowledge base, with the documented queries.

    /sql?q=QUERY      the same at /sql/PROJECT.csv and /sql/PROJECT.arrow, for download

Every query goes through kb_builder/browse/query.py: one statement that reads, no other file, no network, no
settings, and at most a minute.
"""

from __future__ import annotations

import asyncio
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from nicegui import ui

from data.errors import InputError, UniBindError
from data.show import shorten
from kb_builder.browse.answer import printable
from kb_builder.browse.query import sql_table
from kb_builder.browse.views import VIEWS
from pipeline.ui.frame import PageView, Words, address, alert, box, button, link, table
from pipeline.ui.state import Desk

PATH, TITLE = "/sql", "SQL"
MOST_SHOWN, MOST_SENT = 500, 1_000_000  # rows on the page, and in a file
SECONDS = 60.0
DOCS = Path(__file__).parents[3] / "docs" / "duckdb.md"
# Where docs/duckdb.md reads a file, this page reads the view over the same rows.
_FILES = (
    ("'descriptions/category/*.parquet'", "(FROM v_descriptions WHERE kind = 'category')"),
    ("'descriptions/sample/*.parquet'", "(FROM v_descriptions WHERE kind = 'sample')"),
    ("'descriptions/*/*.parquet'", "v_descriptions"),
    ("'rejects/*.parquet'", "v_rejects"),
    ("'categories.parquet'", "v_categories"),
    ("'samples.parquet'", "v_samples"),
    ("'centers.parquet'", "v_centers"),
    ("'controls.parquet'", "v_controls"),
    ("'given_descriptions.parquet'", "v_given_descriptions"),
)


async def show(view: PageView) -> None:
    """The prompt, the answer to the address's query, the views and the documented queries."""
    query = view.get("q")
    field = ui.textarea("SQL", value=query, placeholder="FROM v_descriptions LIMIT 10")
    field.props("outlined autogrow input-class=mono spellcheck=false").classes("search-words")

    def go() -> None:
        if (field.value or "").strip():
            ui.navigate.to(view.to(PATH, q=field.value))

    field.on("keydown.ctrl.enter", go)
    with box("div", "line"):
        button("Run", go, main=True)
        Words("Ctrl+Enter runs it. Nothing can be written, and no other file read.", "span", "quiet")
    if query.strip():
        await _answer(view, query)
    _help(view)


async def _answer(view: PageView, query: str) -> None:
    try:
        found = await asyncio.to_thread(
            sql_table, view.opened.file.kb, query, most=MOST_SHOWN + 1, seconds=SECONDS
        )
    except UniBindError as error:
        alert(error)
        return
    more = len(found) > MOST_SHOWN
    with box("p", "line"):
        Words(f"the first {MOST_SHOWN:,} rows" if more else f"{len(found):,} rows", "span", "quiet").mark(
            "count"
        )
        for kind in ("csv", "arrow"):
            link(
                f"as {kind.upper() if kind == 'csv' else 'Arrow'}",
                address(f"/sql/{view.opened.key}.{kind}", q=query),
                download="",
            )
    columns = [column.to_pylist() for column in found.slice(0, MOST_SHOWN).columns]
    kinds = "".join("r" if _is_number(field.type) else "l" for field in found.schema)
    rows = [[shorten(printable(value), 400) for value in row] for row in zip(*columns, strict=True)]
    table(kinds or "l", found.column_names, rows, label="The rows of the answer", classes="rows")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _help(view: PageView) -> None:
    with box("div", "two"):
        with box("section"):
            Words("Views", "h2")
            with box("dl", "facts"):
                for name, holds in VIEWS.items():
                    with box("dt", "mono"):
                        plain = name.partition("(")[0]
                        if "(" in name:
                            Words(name)
                        else:
                            link(plain, view.to(PATH, q=f"FROM {plain} LIMIT 100"))
                    Words(holds, "dd")
        with box("section"):
            Words("Questions", "h2")
            with box("ul"):
                for words, query in documented():
                    with box("li"):
                        link(words, view.to(PATH, q=query))


@cache
def documented() -> tuple[tuple[str, str], ...]:
    """The queries of docs/duckdb.md over views, each with the words before it; none where it is not there."""
    if not DOCS.is_file():
        return ()
    text = DOCS.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"([^\n]*(?:\n[^\n]+)*)\n\n```sql\n(.*?)```", text, re.DOTALL):
        query = match[2].strip().removesuffix(";")
        for file, name in _FILES:
            query = query.replace(file, name)
        if ".parquet" not in query and not query.startswith("COPY"):
            words = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", match[1].strip().replace("\n", " "))
            sentence = re.split(r"(?<=[a-z)])\. ", words)[0]  # what it asks; the page of the docs says more
            found.append((shorten(sentence.rstrip(":."), 140), query))
    return tuple(found)


async def download(desk: Desk, name: str, request: Request) -> Response:
    """The rows of a query as a file: `PROJECT.csv` or `PROJECT.arrow` (an Arrow IPC stream)."""
    key, _, kind = name.rpartition(".")
    try:
        opened = desk.project(key)
        if kind not in _WRITERS:
            raise InputError("give .csv or .arrow")
        query = request.query_params.get("q", "")
        found = await asyncio.to_thread(sql_table, opened.file.kb, query, most=MOST_SENT, seconds=SECONDS)
        body = await asyncio.to_thread(_WRITERS[kind], found)
    except UniBindError as error:
        return PlainTextResponse(f"{error}\n", 400)
    media = "text/csv; charset=utf-8" if kind == "csv" else "application/vnd.apache.arrow.stream"
    return Response(
        body, media_type=media, headers={"Content-Disposition": f'attachment; filename="rows.{kind}"'}
    )


def _csv(found: pa.Table) -> bytes:
    import csv

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(found.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in found.columns), strict=True))
    return out.getvalue().encode("utf-8", "backslashreplace")


def _arrow(found: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema) as writer:
        writer.write_table(found)
    return bytes(sink.getvalue())


_WRITERS: dict[str, Any] = {"csv": _csv, "arrow": _arrow}
