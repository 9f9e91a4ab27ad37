"""The report's pages on the knowledge base: counted, cut where it is large, with the reasons of rejects."""

from __future__ import annotations

from collections import Counter
from hashlib import md5
from pathlib import Path
from typing import Any

from kb_builder.tables.schemas import CATEGORIES, DESCRIPTIONS, read_rows, write_table
from pipeline.report.kb import knowledge_base_section

HOSTILE = '<script>alert("x")</script>'


def test_the_knowledge_base_is_counted(run: Any, page: Any) -> None:
    """Texts by category, model and status equal a plain count over the table."""
    rows = read_rows(run.kb / "descriptions" / "category")
    statuses = Counter(row["status"] for row in rows)
    assert (
        f"4 categories, {len(rows)} texts written about them, {statuses['ok']} kept: 6 to 6 each."
        in page.text
    )
    assert f"category local model-x {len(rows)} {statuses['ok']}" in page.text
    assert f"no_name category {statuses['no_name']}" in page.text
    kept = [row for row in rows if row["status"] == "ok"]
    drawn = sorted(kept, key=lambda row: (md5(row["row_id"].encode()).hexdigest(), row["row_id"]))[:10]
    assert len(drawn) == 10
    for row in drawn:
        assert row["text"] in page.text
    centers = {row["row_id"] for row in read_rows(run.kb / "centers.parquet")}
    told = page.text.partition("10 texts drawn at random")[2].partition("Texts by model")[0]
    assert told.count(" center") == sum(row["row_id"] in centers for row in drawn)


def test_quarantined_samples_are_listed_with_their_reason(page: Any) -> None:
    """A rejected sample stands on the page with its stage."""
    assert "1 sample left out without stopping the run: 1 at encode." in page.text
    assert f"{HOSTILE} encode broken" in page.text


def test_a_large_knowledge_base_is_counted_and_cut(tmp_path: Path, description: Any, parsed: Any) -> None:
    """A thousand categories with long texts stay small on the page, and what is left out is counted."""
    names = [f"category {i:04d}" for i in range(1000)]
    categories = [
        {"category_id": name, "name": name, "aliases": [], "parent": None, "notes": None} for name in names
    ]
    write_table(tmp_path / "categories.parquet", categories, CATEGORIES)
    rows = [
        description(f"{name}/{i}", kind="category", category_id=name, text=f"{i} " + "long " * 500)
        for name in names[1:]
        for i in range(2)
    ]
    write_table(tmp_path / "descriptions" / "category" / "part-00000.parquet", rows, DESCRIPTIONS)
    section = knowledge_base_section(tmp_path)
    text = parsed(section).text
    assert len(section) < 200_000
    assert "1,000 categories, 1,998 texts written about them, 1,998 kept: 0 to 2 each." in text
    assert "Without any text, so never recognised: 1." in text
    assert "940 more are not shown" in text
    assert text.count("long long") <= 10 * 200
