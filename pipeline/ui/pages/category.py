"""One category: accuracy, confusions, centers with the samples that each wins, and texts to edit."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from nicegui import ui

from data.errors import InputError, UniBindError
from data.show import visible
from kb_builder.added.struck import read_struck
from pipeline.ui.edits import Pending, Preview, preview, save
from pipeline.ui.frame import (
    PageView,
    Words,
    alert,
    answers_ready,
    bar,
    box,
    button,
    chip,
    interval_bar,
    link,
    table,
)
from pipeline.ui.state import IS_RIGHT
from trainer.evaluate.intervals import share_interval

PATH, TITLE = "/category", "Category"
MOST_TEXTS = 300


async def show(view: PageView) -> None:
    """Everything about the category that the address names."""
    one = view.get("id")
    found = await view.rows("SELECT * FROM v_categories WHERE category_id = ?", [one])
    if not found:
        raise InputError(f"there is no category {one!r} in this project")
    (category,) = found
    Words(category["name"], "h2").style("font-size:1.4rem;margin-top:0")
    more = [", ".join(category["aliases"] or ()), category["parent"] or "", category["notes"] or ""]
    if any(more):
        Words(" · ".join(each for each in more if each), "p", "quiet")
    with box("p", "line"):
        link("Its samples", view.to("/samples", category=one))
        link("Search by its name", view.to("/", q=category["name"]))
    await answers_ready(view)
    with box("div", "two"):
        with box("section"):
            await _accuracy(view, one)
        with box("section"):
            await _confusions(view, one)
    await _centers(view, one)
    await _texts(view, one, category["name"])


async def _accuracy(view: PageView, one: str) -> None:
    rows = await view.rows(
        f"SELECT s.modality, count(*) AS n, count(*) FILTER ({IS_RIGHT}) AS right_n FROM v_samples AS s"
        " JOIN answers AS a USING (sample_id) WHERE s.category_id = ? AND s.split = 'test'"
        " GROUP BY ALL ORDER BY s.modality",
        [one],
        answers=True,
    )
    Words("Recognised test samples", "h2")
    if not rows:
        Words("It has no encoded test sample.", "p", "quiet")
        return

    def line(row: dict[str, Any]) -> list[Any]:
        hits = np.arange(row["n"]) < row["right_n"]
        low, high = share_interval(hits, resamples=1000, seed=0)
        share = row["right_n"] / row["n"]
        wrong = view.to("/samples", category=one, modality=row["modality"], split="test", state="wrong")
        return [
            lambda: chip(row["modality"]),
            f"{share:.0%}",
            lambda: interval_bar(share, low, high),
            f"{row['right_n']} of {row['n']}",
            (lambda: link("mistakes", wrong)) if share < 1 else "",
        ]

    table("lrlrl", ("modality", "right", "", "samples", ""), [line(row) for row in rows], label="Accuracy")


async def _confusions(view: PageView, one: str) -> None:
    out = await view.rows(
        "SELECT a.named AS other, c.name, count(*) AS n FROM v_samples AS s"
        " JOIN answers AS a USING (sample_id) JOIN v_categories AS c ON c.category_id = a.named"
        f" WHERE s.category_id = ? AND s.split = 'test' AND NOT {IS_RIGHT}"
        " GROUP BY ALL ORDER BY n DESC, c.name"
        " LIMIT 6",
        [one],
        answers=True,
    )
    back = await view.rows(
        "SELECT s.category_id AS other, c.name, count(*) AS n FROM v_samples AS s"
        " JOIN answers AS a USING (sample_id) JOIN v_categories AS c USING (category_id)"
        f" WHERE a.named = ? AND s.split = 'test' AND NOT {IS_RIGHT}"
        " GROUP BY ALL ORDER BY n DESC, c.name"
        " LIMIT 6",
        [one],
        answers=True,
    )
    for title, rows, mine in (("Recognised as", out, True), ("Recognised as it", back, False)):
        Words(title, "h2")
        if not rows:
            Words("none", "p", "quiet")
        with box("ul"):
            for row in rows:
                pair = (one, row["other"]) if mine else (row["other"], one)
                with box("li"):
                    link(row["name"], view.to("/category", id=row["other"]))
                    Words(" ")
                    there = view.to("/samples", category=pair[0], named=pair[1], split="test")
                    link(f"{row['n']} sample{'s' if row['n'] > 1 else ''}", there, "sub")


async def _centers(view: PageView, one: str) -> None:
    rows = await view.rows(
        "WITH won AS (SELECT a.why, count(*) AS n, count(*) FILTER (s.category_id = ?) AS right_n"
        " FROM answers AS a JOIN v_samples AS s USING (sample_id) WHERE s.category_id IS NOT NULL"
        " GROUP BY ALL) SELECT c.rank, c.row_id, c.score, c.rule, coalesce(d.text, n.text) AS text,"
        " coalesce(w.n, 0) AS wins, coalesce(w.right_n, 0) AS right_n, d.row_id IS NOT NULL AS described"
        " FROM v_centers AS c LEFT JOIN v_descriptions AS d USING (row_id)"
        " LEFT JOIN v_controls AS n USING (row_id) LEFT JOIN won AS w ON w.why = c.row_id"
        " WHERE c.category_id = ? ORDER BY c.rank",
        [one, one],
        answers=True,
    )
    Words("Embedding centers", "h2")
    if not rows:
        Words("None were chosen yet; run the project to its stage localize.", "p", "quiet")
        return
    Words(
        "Each center with the labelled samples for which it was the nearest of the answer, and how many of"
        " these answers are right. A center that wins many samples of others is a hub.",
        "p",
        "quiet",
    )
    most = max(row["wins"] for row in rows) or 1

    def line(row: dict[str, Any]) -> list[Any]:
        wrong = row["wins"] - row["right_n"]
        hub = wrong > row["right_n"] and row["wins"] >= 10
        return [
            str(row["rank"] + 1),
            (lambda: link(row["text"], view.to("/text", id=row["row_id"])))
            if row["described"]
            else row["text"],
            f"{row['score']:.3f}",
            lambda: link(f"{row['wins']:,}", view.to("/samples", center=row["row_id"])),
            lambda: bar(row["wins"] / most),
            "" if not row["wins"] else f"{row['right_n'] / row['wins']:.0%}" + (" hub" if hub else ""),
        ]

    head = ("rank", "text", row_score(rows[0]["rule"]), "wins", "", "right")
    table("rwrrlr", head, [line(row) for row in rows], label="Embedding centers")


def row_score(rule: str) -> str:
    """The heading of the scores of a rule."""
    return f"score ({rule})"


async def _texts(view: PageView, one: str, name: str) -> None:
    rows = await view.rows(
        "SELECT row_id, text, status, reason, aspect, model_resolved AS model, source FROM v_descriptions"
        " WHERE kind = 'category' AND category_id = ? ORDER BY status <> 'ok', status, aspect, text"
        f" LIMIT {MOST_TEXTS}",
        [one],
    )
    struck = await asyncio.to_thread(read_struck, view.opened.file.kb)
    ok = sum(row["status"] == "ok" for row in rows)
    Words("Texts", "h2")
    Words(
        f"{ok} accepted, {len(rows) - ok} rejected"
        + (f" (the first {MOST_TEXTS})" if len(rows) == MOST_TEXTS else "")
        + ". A text can be struck out, so that it is never a center, or added by hand: mark, preview the"
        " localization, then save. The next run takes it in; nothing is asked of a model for it.",
        "p",
        "quiet",
    )
    pending = Pending(one, name)
    texts = {row["row_id"]: row["text"] for row in rows}
    _editor(view, pending, texts)

    def line(row: dict[str, Any]) -> list[Any]:
        gone = row["row_id"] in struck

        def text() -> None:
            Words(row["text"], "span", "struck" if gone else "" if row["status"] == "ok" else "quiet")
            if gone:
                each = struck[row["row_id"]]
                Words(
                    f" struck out {each.struck_at[:10]}{': ' if each.reason else ''}{each.reason}",
                    "span",
                    "sub",
                )

        def mark() -> None:
            box_ = ui.checkbox().props("dense")
            box_.props["aria-label"] = visible(f"{'take back' if gone else 'strike out'}: {row['text'][:80]}")
            marked = pending.restored if gone else pending.struck
            box_.on_value_change(
                lambda event: marked.add(row["row_id"]) if event.value else marked.discard(row["row_id"])
            )

        status = row["status"] if row["reason"] is None else f"{row['status']}: {row['reason']}"
        return [
            text,
            mark if row["status"] == "ok" else "",
            "struck out" if gone else status,
            row["aspect"] or "",
            row["model"] if row["source"] != "added" else f"{row['model']} (added)",
            lambda: link("why", view.to("/text", id=row["row_id"])),
        ]

    head = ("text", "strike / take back", "status", "aspect", "written by", "")
    table("wlllll", head, [line(row) for row in rows], label="Texts")


def _editor(view: PageView, pending: Pending, texts: dict[str, str]) -> None:
    """The field for a text, the preview, and the button that saves."""
    with box("div", "line"):
        field = ui.input("Add a text about it", placeholder=visible(f"A {pending.name} …")).classes("words")
        field.props("outlined dense maxlength=2000").style("flex:1 1 18rem")
        add = box("span")
        look = box("span")
        reason = (
            ui.input("Reason, if any is struck out")
            .props("outlined dense maxlength=500")
            .style("flex:0 1 16rem")
        )
        keep = box("span")
    marked = box("ul", "", aria_label="texts marked to be added")
    spot = box("div", "", aria_live="polite")

    def add_text() -> None:
        text = (field.value or "").strip()
        if text and text not in pending.added:
            pending.added.append(text)
            with marked:
                Words(text, "li")
            field.value = ""

    async def show_preview() -> None:
        spot.clear()
        with spot:
            Words("Localizing …", "p", "quiet")
        try:
            done = await asyncio.to_thread(preview, view.opened, pending, texts)
        except UniBindError as error:
            spot.clear()
            with spot:
                alert(error)
            return
        spot.clear()
        with spot:
            _preview(done)

    async def store() -> None:
        try:
            if not pending:
                raise InputError("nothing is marked yet")
            await asyncio.to_thread(save, view.opened, pending, reason=reason.value or "")
        except UniBindError as error:
            spot.clear()
            with spot:
                alert(error)
            return
        ui.navigate.to(view.here(saved=True))

    field.on("keydown.enter", add_text)
    with add:
        button("Mark to add", add_text)
    with look:
        button("Preview the localization", show_preview)
    with keep:
        button("Save", store, main=True)
    if view.get("saved"):
        with spot:
            alert(
                "Saved. “unibind run” (or the page Run) localizes, trains and evaluates again.", kind="note"
            )


def _preview(done: Preview) -> None:
    old, new = ({line.row_id for line in lines} for lines in (done.before, done.after))
    lost = [line for line in done.before if line.row_id not in new]
    won = [line for line in done.after if line.row_id not in old]
    Words("What localization would choose", "h3")
    if not lost and not won:
        Words("The same centers as now.", "p")
    with box("div", "two"):
        for title, lines, sign in (("No longer centers", lost, "−"), ("New centers", won, "+")):
            with box("section"):
                Words(f"{title}: {len(lines)}", "h3")
                with box("ul"):
                    for line in lines:
                        Words(f"{sign} {line.text}", "li")
    before, after = done.shares_before, done.shares_after
    Words(
        f"With the heads as they are, of its {after.own_of:,} samples outside the train split {before.own:,}"
        f" are recognised now and {after.own:,} would be; of all {after.of:,}, {before.every:,} now and"
        f" {after.every:,} then (text samples left out).",
        "p",
    )
