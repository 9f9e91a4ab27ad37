"""Describe a million texts by `unibind describe`: rate, memory, queries afterwards, and a resume."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from bench.child import Ended, run
from bench.fake import UNIBIND, fake_server, reset, stats
from bench.rows import at_most, row

CATEGORIES = 1_000
TEXTS = 1_000  # per category
ITEMS = 20  # per request
FEWEST_TEXTS_S = 4_000.0
MOST_MB = 500.0
MOST_QUERY_S = 1.0
MOST_RESUME_S = 10.0

PROJECT = """
name = "million"

[data]
manifest = "manifest.csv"
categories = "categories.txt"

[describe.categories]
describer = "openai"
model = "fake-1"
base_url = "{url}"
n = {texts}
items = {items}
near_cosine = "off"
contrast_pairs = 0
concurrency = 64

[describe.samples]
describer = "none"
"""


def measure_million(*, scale: float, folder: Path | None = None) -> list[dict[str, Any]]:
    """The rows. `scale` 1 is a thousand categories of a thousand texts; 0.01 is ten categories of them."""
    categories = max(1, round(CATEGORIES * scale))
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place,
        fake_server() as url,
    ):
        home = Path(place)
        write_project(home, url, categories)
        first = describe(home)
        counters = stats(url)
        if first.code != 0:
            return [row("a million descriptions", None, "s", note=first.failure)]
        reset(url)
        again = describe(home)
        asked = stats(url)["requests"]
        rows = _run_rows(first, again, counters, asked, wanted=categories * TEXTS)
        return [*rows, *_query_rows(home / "runs" / "million" / "kb")]


def write_project(home: Path, url: str, categories: int) -> None:
    """Write a project with this many categories, described by the server at `url`."""
    names = list(itertools.islice(_names(), categories))
    (home / "categories.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (home / "one.txt").write_text(f"A text about {names[0]}.\n", encoding="utf-8")
    (home / "manifest.csv").write_text(
        f"uri,modality,category,split\none.txt,text,{names[0]},train\n", encoding="utf-8"
    )
    project = PROJECT.format(url=url, texts=TEXTS, items=ITEMS)
    (home / "unibind.toml").write_text(project, encoding="utf-8")


def _names() -> itertools.chain[str]:
    """Invented words: no text about one of them names another."""
    heads, middles, tails = (
        ("bal", "cor", "dem", "fil", "gor"),
        ("ami", "eso", "ilu", "ona", "uve"),
        "bdfgklmn",
    )
    return itertools.chain(
        f"{head}{middle}{letter}{tail}"
        for head, middle, letter, tail in itertools.product(
            heads, middles, tails, ("ar", "en", "ix", "ol", "us")
        )
    )


def describe(home: Path) -> Ended:
    """Run `unibind describe` on the project."""
    env = {"OPENAI_API_KEY": "sk-bench", "HF_HUB_OFFLINE": "1"}
    return run([UNIBIND, "describe", "--project", home / "unibind.toml"], env=env)


def _run_rows(
    first: Ended, again: Ended, counters: dict[str, Any], asked: int, *, wanted: int
) -> list[dict[str, Any]]:
    pace = counters["items"] / first.wall_s
    return [
        row(
            f"{wanted:,} descriptions: texts per second",
            pace,
            "texts/s",
            goal=f">= {FEWEST_TEXTS_S:,.0f} texts/s",
            met=pace >= FEWEST_TEXTS_S,
            note=f"{counters['answers']} requests of {ITEMS} texts, {first.wall_s:.1f} s in all, "
            f"{first.cpu_s:.1f} s of CPU in the builder",
        ),
        row(
            f"{wanted:,} descriptions: peak memory of the builder",
            first.peak_mb,
            "MB",
            **at_most(first.peak_mb, MOST_MB, "MB"),
        ),
        row(
            f"{wanted:,} descriptions: resume, nothing left",
            again.wall_s if again.code == 0 and asked == 0 else None,
            "s",
            note=f"{asked} requests sent" if again.code == 0 else again.failure,
            **at_most(again.wall_s, MOST_RESUME_S, "s"),
        ),
    ]


def _query_rows(kb: Path) -> list[dict[str, Any]]:
    """Three SQL queries, each on a new connection."""
    parts = kb / "descriptions" / "category" / "*.parquet"
    table = f"read_parquet('{parts}')"
    questions = {
        "count": f"SELECT count(*) FROM {table} WHERE status = 'ok'",
        "distinct texts": f"SELECT count(DISTINCT text) FROM {table} WHERE status = 'ok'",
        "one category": f"SELECT count(*), min(text) FROM {table} WHERE category_id = "
        f"(SELECT max(category_id) FROM {table})",
    }
    rows = []
    for name, question in questions.items():
        with duckdb.connect() as connection:
            start = time.perf_counter()
            (answer,) = connection.execute(question).fetchall()
            taken = time.perf_counter() - start
        rows.append(
            row(
                f"DuckDB: {name}",
                taken,
                "s",
                note=f"answer: {answer[0]}",
                **at_most(taken, MOST_QUERY_S, "s"),
            )
        )
    return rows
