"""A gallery of the samples, filtered, page by page; and the quarantined samples, with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from data.manifest.read import SPLITS
from data.modality import MODALITIES
from pipeline.ui.cards import sample_card
from pipeline.ui.frame import PageView, Words, alert, answers_ready, box, filters, link, pager, table
from pipeline.ui.state import IS_RIGHT

PATH, TITLE = "/samples", "Samples"
SIZE = 48  # of a page

STATES = {
    "right": "recognised",
    "wrong": "not recognised",
    "unlabelled": "without a category",
    "quarantined": "quarantined",
}
_CONDITIONS = {
    "right": f"s.category_id IS NOT NULL AND {IS_RIGHT}",
    "wrong": f"s.category_id IS NOT NULL AND a.named IS NOT NULL AND NOT {IS_RIGHT}",
    "unlabelled": "s.category_id IS NULL",
}
ORDERS = {
    "confident": ("most confident first", "coalesce(a.probability, a.lead) DESC NULLS LAST, s.sample_id"),
    "unsure": ("least confident first", "coalesce(a.probability, a.lead) NULLS LAST, s.sample_id"),
    "score": ("highest score first", "a.score DESC NULLS LAST, s.sample_id"),
}
CONFIDENCE = {"0.9": "at least 90%", "0.5": "at least 50%", "-0.5": "below 50%", "-0.2": "below 20%"}


async def show(view: PageView) -> None:
    """The filters, and one page of what passes them."""
    categories = await view.rows("SELECT category_id, name FROM v_categories ORDER BY name, category_id")
    names = {row["category_id"]: row["name"] for row in categories}
    chosen = {
        "modality": ("Modality", {name: name for name in MODALITIES}),
        "category": ("Category", names),
        "split": ("Split", {name: name for name in SPLITS}),
        "state": ("Answer", STATES),
        "named": ("Recognised as", names),
        "sure": ("Confidence", CONFIDENCE),
        "order": ("Order", {"": "by id", **{key: words for key, (words, _) in ORDERS.items()}}),
    }
    filters(view, chosen)
    if view.get("state") == "quarantined":
        await _quarantined(view)
        return
    await answers_ready(view)
    where, values = conditions(view)
    tables = "FROM v_samples AS s LEFT JOIN answers AS a USING (sample_id)"
    page = view.number("page", 1, high=1_000_000)
    order = ORDERS.get(view.get("order"), ("", "s.sample_id"))[1]
    (count,) = await view.rows(f"SELECT count(*) AS n {tables} WHERE {where}", values, answers=True)
    rows = await view.rows(
        "SELECT s.sample_id, s.modality, s.category_id, s.split, a.named, a.score, a.probability,"
        f" s.category_id IS NOT NULL AND {IS_RIGHT} AS is_right"
        f" {tables} WHERE {where} ORDER BY {order} LIMIT {SIZE} OFFSET {SIZE * (page - 1)}",
        values,
        answers=True,
    )
    if not rows:
        alert("No sample passes these filters.", kind="note")
        return
    texts = await asyncio.to_thread(
        view.opened.texts_of, [row["sample_id"] for row in rows if row["modality"] == "text"]
    )
    words = f"{SIZE * (page - 1) + 1:,} to {SIZE * (page - 1) + len(rows):,} of {count['n']:,}"
    pager(view, page, SIZE * page < count["n"], words)
    with box("div", "cards"):
        for row in rows:
            _card(view, row, names, texts)
    pager(view, page, SIZE * page < count["n"], words, label="Pages of the list, below it")


def conditions(view: PageView) -> tuple[str, list[Any]]:
    """The condition that an address puts on samples, and its values."""
    parts: list[str] = ["true"]
    values: list[Any] = []
    for name, column in (
        ("modality", "s.modality"),
        ("category", "s.category_id"),
        ("split", "s.split"),
        ("named", "a.named"),
        ("center", "a.why"),
        ("object", "s.object_id"),
    ):
        if given := view.get(name):
            parts.append(f"{column} = ?")
            values.append(given)
    if (state := view.get("state")) in _CONDITIONS:
        parts.append(_CONDITIONS[state])
    if (sure := view.get("sure")) in CONFIDENCE:
        parts.append(f"a.probability {'>=' if float(sure) > 0 else '<'} ?")
        values.append(abs(float(sure)))
    return " AND ".join(parts), values


def _card(view: PageView, row: dict[str, Any], names: dict[str, str], texts: dict[str, str]) -> None:
    own = names.get(row["category_id"] or "", "no category")
    named = names.get(row["named"] or "", "")
    state = (
        "" if row["named"] is None or row["category_id"] is None else "right" if row["is_right"] else "wrong"
    )
    note = f"{row['modality']}, {row['split']}" if state != "wrong" else f"as {named}"
    sure = "" if row["score"] is None else f"{row['score']:.2f}"
    if row["probability"] is not None:
        sure = f"{row['probability']:.0%}"
    sample_card(
        view,
        row["sample_id"],
        row["modality"],
        own,
        sure,
        text=texts.get(row["sample_id"]),
        state=state,
        note=note,
    )


async def _quarantined(view: PageView) -> None:
    """The rejected samples, with the stage that rejected each and why."""
    page = view.number("page", 1, high=1_000_000)
    rows: Sequence[dict[str, Any]] = await view.rows(
        "SELECT r.sample_id, r.stage, r.reason, s.modality, s.category_id FROM v_rejects AS r"
        " LEFT JOIN v_samples AS s USING (sample_id)"
        " WHERE (? = '' OR s.modality = ?) AND (? = '' OR s.category_id = ?)"
        f" ORDER BY r.stage, r.sample_id LIMIT {SIZE + 1} OFFSET {SIZE * (page - 1)}",
        [view.get("modality"), view.get("modality"), view.get("category"), view.get("category")],
    )
    if not rows:
        alert("No sample was quarantined.", kind="note")
        return

    def sample(row: dict[str, Any]) -> Any:
        if row["modality"] is None:
            return row["sample_id"]
        return lambda: link(row["sample_id"], view.to("/sample", id=row["sample_id"]))

    table(
        "lll",
        ("sample", "rejected by", "why"),
        [(sample(row), row["stage"], row["reason"]) for row in rows[:SIZE]],
        label="Quarantined samples",
    )
    pager(view, page, len(rows) > SIZE, f"page {page}")
    Words("A quarantined sample takes no part in anything; the run went on without it.", "p", "quiet")
