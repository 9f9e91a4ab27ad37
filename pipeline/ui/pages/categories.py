"""All categories: how well each is recognised, what it is confused with, its texts and its centers."""

from __future__ import annotations

import asyncio
from typing import Any

from data.manifest.read import SPLITS
from data.modality import MODALITIES
from pipeline.ui.frame import PageView, Words, alert, answers_ready, filters, interval_bar, link, pager, table
from pipeline.ui.state import IS_RIGHT
from trainer.evaluate.intervals import share_interval

PATH, TITLE = "/categories", "Categories"
SIZE = 100  # of a page
RESAMPLES, SEED = 1000, 0
ORDERS = {
    "name": ("by name", "c.name, c.category_id"),
    "worst": ("worst first", "a.share NULLS LAST, c.name, c.category_id"),
    "best": ("best first", "a.share DESC NULLS LAST, c.name, c.category_id"),
    "texts": ("fewest texts first", "texts, c.name, c.category_id"),
}
_QUERY = f"""\
WITH scored AS (
    SELECT s.category_id, a.named, {IS_RIGHT} AS is_right
    FROM v_samples AS s JOIN answers AS a USING (sample_id)
    WHERE s.category_id IS NOT NULL AND s.split = ? AND (? = '' OR s.modality = ?)
), a AS (
    SELECT category_id, count(*) AS n, count(*) FILTER (is_right) AS right_n, avg(is_right::INT) AS share,
           mode(named) FILTER (NOT is_right) AS taken_for
    FROM scored GROUP BY ALL
), d AS (
    SELECT category_id, count(*) FILTER (status = 'ok') AS ok, count(*) FILTER (status <> 'ok') AS rejected
    FROM v_descriptions WHERE kind = 'category' GROUP BY ALL
), k AS (SELECT category_id, count(*) AS centers FROM v_centers GROUP BY ALL),
s AS (SELECT category_id, count(*) AS samples FROM v_samples WHERE category_id IS NOT NULL GROUP BY ALL)
SELECT c.category_id, c.name, a.n, a.right_n, a.share, t.name AS taken_for, a.taken_for AS taken_for_id,
       coalesce(d.ok, 0) AS texts, coalesce(d.rejected, 0) AS rejected, coalesce(k.centers, 0) AS centers,
       coalesce(s.samples, 0) AS samples
FROM v_categories AS c LEFT JOIN a USING (category_id) LEFT JOIN d USING (category_id)
LEFT JOIN k USING (category_id) LEFT JOIN s USING (category_id)
LEFT JOIN v_categories AS t ON t.category_id = a.taken_for
ORDER BY """


async def show(view: PageView) -> None:
    """The table of categories."""
    filters(
        view,
        {
            "order": ("Order", {"" if key == "name" else key: words for key, (words, _) in ORDERS.items()}),
            "modality": ("Modality", {name: name for name in MODALITIES}),
            "split": ("Split", {"" if name == "test" else name: name for name in SPLITS}),
        },
    )
    await answers_ready(view)
    split = view.one_of("split", SPLITS, "test")
    modality = view.one_of("modality", MODALITIES)
    order = ORDERS[view.one_of("order", ORDERS, "name")][1]
    page = view.number("page", 1, high=1_000_000)
    part = f"LIMIT {SIZE + 1} OFFSET {SIZE * (page - 1)}"
    rows = await view.rows(f"{_QUERY}{order} {part}", [split, modality, modality], answers=True)
    if not rows:
        alert("There is no category here." if page > 1 else "There is no category yet.", kind="note")
        return
    Words(
        f"Recognition of the {split} samples among all categories, as “unibind predict” answers, with the 95%"
        " bootstrap interval.",
        "p",
        "quiet",
    )
    await asyncio.to_thread(_with_intervals, rows[:SIZE])
    table(
        "lrlrlrrrr",
        ("category", "right", "", "of", "most confused with", "texts", "rejected", "centers", "samples"),
        [_row(view, row, split) for row in rows[:SIZE]],
        label="Categories",
    )
    if page > 1 or len(rows) > SIZE:
        first = SIZE * (page - 1) + 1
        (count,) = await view.rows("SELECT count(*) AS n FROM v_categories")
        words = f"{first:,} to {first + len(rows[:SIZE]) - 1:,} of {count['n']:,}"
        pager(view, page, len(rows) > SIZE, words, label="Pages of the categories")


def _with_intervals(rows: list[dict[str, Any]]) -> None:
    import numpy as np

    for row in rows:
        row["low"], row["high"] = 0.0, 1.0
        if row["n"]:
            hits = np.arange(row["n"]) < row["right_n"]
            row["low"], row["high"] = share_interval(hits, resamples=RESAMPLES, seed=SEED)


def _row(view: PageView, row: dict[str, Any], split: str) -> list[Any]:
    one = row["category_id"]

    def taken_for() -> None:
        other = row["taken_for_id"]
        link(row["taken_for"], view.to("/samples", category=one, named=other, split=split))

    def interval() -> None:
        interval_bar(row["share"], row["low"], row["high"])

    return [
        lambda: link(row["name"], view.to("/category", id=one)),
        "–" if row["share"] is None else f"{row['share']:.0%}",
        "" if row["share"] is None else interval,
        "" if row["n"] is None else f"{row['n']:,}",
        taken_for if row["taken_for"] else "",
        f"{row['texts']:,}",
        f"{row['rejected']:,}",
        f"{row['centers']:,}",
        lambda: link(f"{row['samples']:,}", view.to("/samples", category=one)),
    ]
