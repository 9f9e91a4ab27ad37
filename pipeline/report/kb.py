"""The report's sections on the knowledge base: kept and rejected texts, examples, quarantined samples.

DuckDB counts over the Parquet files column by column, so that millions of texts are not loaded into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from data.reads import names, reading
from data.show import shorten
from kb_builder.tables.schemas import CATEGORIES, CENTERS, DESCRIPTIONS, read_rows
from pipeline.html.elements import Child, Html, counted, el, join, section, table

_MOST_CATEGORIES = 60  # in tables and examples; the others are counted
_EXAMPLES = 10
_MOST_QUARANTINED = 60
_TEXT_CHARS = 200

_STATUS_WORDS = {
    "dup_exact": "repeats another text",
    "dup_near": "near-duplicate of another text",
    "too_long": "longer than the text encoder reads",
    "refusal": "the model refused",
    "no_name": "does not name its subject",
    "other_name": "names another category",
    "unparsed": "answer could not be read",
}


def knowledge_base_section(kb: Path) -> Html:
    """Descriptions per category, model and status; rejected texts; example texts."""
    with duckdb.connect() as tables:
        for name, path, schema in (
            ("categories", kb / "categories.parquet", CATEGORIES),
            ("centers", kb / "centers.parquet", CENTERS),
            ("category_texts", kb / "descriptions" / "category", DESCRIPTIONS),
            ("sample_texts", kb / "descriptions" / "sample", DESCRIPTIONS),
        ):
            tables.register(name, _dataset(path, schema))
        counts = _category_counts(tables)
        parts = [
            el("p", _summary(counts), class_="sub"),
            _examples(tables),
            el(
                "details",
                el("summary", "Texts by model and category, and rejected ones"),
                _per_model(tables),
                _per_category(counts),
                el("h3", "Rejected texts"),
                _rejected(tables),
            ),
        ]
    return section("knowledge-base", "The knowledge base", *parts)


def quarantine_section(kb: Path) -> Html:
    """Quarantined samples by stage, each with its reason."""
    rejects = [row for file in names(kb / "rejects", "*.parquet") for row in read_rows(file)]
    rejects.sort(key=lambda reject: (reject["stage"], reject["sample_id"], reject["reason"]))
    if not rejects:
        return section("quarantine", "Quarantined samples", el("p", "None: every sample could be used."))
    by_stage = Counter(reject["stage"] for reject in rejects)
    stages = ", ".join(f"{count} at {stage}" for stage, count in sorted(by_stage.items()))
    rows: list[list[Child]] = [
        [
            shorten(reject["sample_id"], 80),
            reject["stage"],
            el("span", shorten(reject["reason"], 240), class_="prose"),
        ]
        for reject in rejects[:_MOST_QUARANTINED]
    ]
    left = len(rejects) - len(rows)
    more = f" {left} more are in the knowledge base’s rejects tables." if left else ""
    return section(
        "quarantine",
        "Quarantined samples",
        el(
            "p",
            f"{counted(len(rejects), 'sample')} left out without stopping the run: {stages}.{more}",
            class_="sub",
        ),
        table("lll", ["sample", "stage", "reason"], rows),
    )


def _dataset(path: Path, schema: pa.Schema) -> ds.Dataset:
    """A table's file or folder of parts as one data set; empty if there is none."""
    files = (
        names(path, "*.parquet") if path.suffix != ".parquet" else [path] if reading(path).exists() else []
    )
    if not files:
        return ds.dataset(schema.empty_table())
    return ds.dataset([str(reading(file)) for file in files], schema=schema, format="parquet")


def _rows(tables: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = tables.execute(query).fetchall()
    return rows


def _category_counts(tables: duckdb.DuckDBPyConnection) -> list[tuple[str, dict[str, int]]]:
    """(category name, status -> texts), by name; a category without a text has an empty dict."""
    names = dict(_rows(tables, "SELECT category_id, name FROM categories ORDER BY name, category_id"))
    found: dict[str, dict[str, int]] = {category: {} for category in names}
    query = "SELECT category_id, status, count(*) FROM category_texts GROUP BY ALL ORDER BY ALL"
    for category, status, count in _rows(tables, query):
        found.setdefault(category, {})[status] = count
    return [(names.get(category, category), statuses) for category, statuses in found.items()]


def _summary(counts: Sequence[tuple[str, dict[str, int]]]) -> str:
    good = [statuses.get("ok", 0) for _, statuses in counts]
    if not good:
        return "There is no category."
    written = sum(sum(statuses.values()) for _, statuses in counts)
    categories, texts = counted(len(good), "category", "categories"), counted(written, "text")
    words = f"{categories}, {texts} written about them, {sum(good):,} kept: {min(good)} to {max(good)} each."
    without = sum(count == 0 for count in good)
    return f"{words} Without any text, so never recognised: {without}." if without else words


def _per_model(tables: duckdb.DuckDBPyConnection) -> Html:
    query = """
        SELECT kind, source, model_resolved, count(*) AS n, count(*) FILTER (status = 'ok') AS ok,
               avg(n_tokens) FILTER (status = 'ok') AS tokens
        FROM (FROM category_texts UNION ALL FROM sample_texts)
        GROUP BY ALL ORDER BY kind, n DESC, source, model_resolved
    """
    body: list[list[Child]] = [
        [kind, source, shorten(model, 60), f"{n:,}", f"{ok:,}", "–" if tokens is None else f"{tokens:.0f}"]
        for kind, source, model, n, ok, tokens in _rows(tables, query)
    ]
    head = ["texts about", "source", "model", "written", "kept", "tokens, mean"]
    return table("lllrrr", head, body) if body else el("p", "Nothing has been described.")


def _per_category(counts: Sequence[tuple[str, dict[str, int]]]) -> Html:
    statuses = [
        status
        for status in sorted({status for _, found in counts for status in found} - {"ok"})
        if any(found.get(status) for _, found in counts)
    ]
    fewest_first = sorted(counts, key=lambda one: (one[1].get("ok", 0), one[0]))
    shown = sorted(fewest_first[:_MOST_CATEGORIES], key=lambda one: one[0])
    most = max((sum(found.values()) for _, found in shown), default=0) or 1
    body: list[list[Child]] = []
    for name, found in shown:
        ok, all_of_them = found.get("ok", 0), sum(found.values())
        bar = el("span", _bar(ok, most), _bar(all_of_them - ok, most, rest=True), class_="bars")
        rejected = [str(found[status]) if found.get(status) else "·" for status in statuses]
        body.append([shorten(name, 80), str(ok), bar, *rejected])
    left = len(counts) - len(shown)
    caption = "Texts per category: kept (dark) and rejected (light), by reason."
    caption += f" The {len(shown)} with the fewest; {left} more are not shown." if left else ""
    head = ["category", "kept", "", *(status.replace("_", " ") for status in statuses)]
    return table(f"lrl{'r' * len(statuses)}", head, body, caption=caption)


def _bar(count: int, most: int, *, rest: bool = False) -> Html:
    if not count:
        return join([])
    return el("span", class_="bar rest" if rest else "bar", style=f"width:{10 * count / most:.2f}rem")


def _rejected(tables: duckdb.DuckDBPyConnection) -> Html:
    """Rejected texts by status, with one example each, to check the gates."""
    query = """
        SELECT kind, status, count(*) AS n, arg_min(text, row_id)
        FROM (FROM category_texts UNION ALL FROM sample_texts)
        WHERE status <> 'ok' GROUP BY kind, status ORDER BY kind, n DESC, status
    """
    body: list[list[Child]] = [
        [
            el("code", status),
            kind,
            f"{count:,}",
            _STATUS_WORDS.get(status, ""),
            el("q", shorten(text, 160), class_="prose"),
        ]
        for kind, status, count, text in _rows(tables, query)
    ]
    if not body:
        return el("p", "None.")
    return table("llrll", ["status", "texts about", "texts", "meaning", "for example"], body)


def _examples(tables: duckdb.DuckDBPyConnection) -> Html:
    """Ten kept texts, drawn at random but the same each time."""
    query = f"""
        SELECT name, text, centers.row_id IS NOT NULL
        FROM category_texts JOIN categories USING (category_id)
        LEFT JOIN centers USING (row_id)
        WHERE status = 'ok' ORDER BY md5(row_id), row_id LIMIT {_EXAMPLES}
    """
    found = _rows(tables, query)
    if not found:
        return el("p", "There are no texts.")
    items = [
        el("li", el("span", shorten(name, 60), class_="who"), " ", el("q", shorten(text, _TEXT_CHARS)), *mark)
        for name, text, is_center in found
        for mark in [[el("span", " center", class_="better")] if is_center else []]
    ]
    words = f"{counted(len(found), 'text')} drawn at random; `unibind kb show CATEGORY` shows any."
    return join([el("p", words, class_="sub"), el("ul", *items, class_="drawn")])
