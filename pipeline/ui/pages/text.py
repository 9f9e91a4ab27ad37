"""All that is known of one description: prompt, request, raw answer, and every gate's verdict."""

from __future__ import annotations

import asyncio

from data.show import shorten
from kb_builder.browse.answer import QueryResult
from kb_builder.verify.explain import explain
from pipeline.ui.frame import PageView, Words, box, link, table

PATH, TITLE = "/text", "A description"
_TITLES = {
    "row": "The text",
    "subject": "What it is about",
    "origin": "Where it comes from",
    "prompt": "The prompt",
    "request": "The request",
    "answer": "The raw answer",
    "parsed": "What was read from the answer",
    "gates": "The gates",
}
_LONG = 20_000


async def show(view: PageView) -> None:
    """What `unibind kb explain` knows of the row that the address names."""
    page = await asyncio.to_thread(explain, view.opened.file.kb, view.get("id"))
    sections = dict(page.sections)
    about = dict(sections["row"].rows)
    subject = dict(sections["subject"].rows)
    Words(about["text"], "blockquote", "text-sample")
    with box("p", "line"):
        if about["kind"] == "category":
            link(f"Category {subject.get('name', '')}", view.to("/category", id=subject["category_id"]))
        else:
            link(f"Sample {subject['sample_id']}", view.to("/sample", id=subject["sample_id"]))
    for name in ("gates", "prompt", "answer", "parsed", "request", "origin", "row", "subject"):
        if name in sections:
            Words(_TITLES[name], "h2")
            _section(sections[name])


def _section(result: QueryResult) -> None:
    """A table of two columns as a list of names and values, any other as a table."""
    if len(result.columns) == 2:
        with box("dl", "facts"):
            for name, value in result.rows:
                Words(name, "dt")
                Words(shorten(str(value), _LONG), "dd", "mono" if name in {"raw", "user", "system"} else "")
        return
    rows = [[shorten(str(value), _LONG) for value in row] for row in result.rows]
    table("l" * len(result.columns), result.columns, rows, label="Details")
