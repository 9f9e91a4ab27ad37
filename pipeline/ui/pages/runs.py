"""The run: every stage's progress as it happens, requests, rejected texts and samples; start and pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from nicegui import ui

from data.errors import UniBindError
from data.show import duration
from pipeline.ui.frame import PageView, Words, alert, box, button, link, table
from pipeline.ui.watch import Runner, RunProgress, counts_text, progress, stale_stages

PATH, TITLE = "/run", "Run"
EVERY_S, COUNT_S = 2.0, 10.0  # the state of the run; the tables, which cost more to read
_MARKS = {"done": "✓", "running": "▸", "waiting": "·", "stale": "↻"}
_WORDS = {"done": "finished", "running": "at work", "waiting": "waiting", "stale": "to run again"}


async def show(view: PageView) -> None:
    """The stages and what they count; it is read again every two seconds."""
    project = view.opened.file
    runner = view.desk.runner(view.opened)
    stale: dict[str, str | None] = {}
    checked: Sequence[tuple[str, float]] | None = None  # the finished stages that `stale` was found for
    looked: bool | None = None  # whether a run was at work at the last look
    _buttons(view, runner)
    wrong = box("div")
    spot = box("div", "", aria_live="off")

    async def tick() -> None:
        nonlocal stale, looked, checked
        try:
            now = await asyncio.to_thread(progress, project, stale)
            at_work = now.holder is not None
            if at_work:
                checked = None
            elif looked is not None and now.finished != checked:  # not at the first look: it takes long
                checked = now.finished  # of before: what a run finishes meanwhile is checked at the next look
                stale = await asyncio.to_thread(stale_stages, project)
                now = await asyncio.to_thread(progress, project, stale)
            looked = at_work
        except UniBindError as error:
            wrong.clear()
            with wrong:
                alert(error)
            return
        if spot.is_deleted:
            return
        spot.clear()
        with spot:
            for pause in now.pauses:
                since = duration(max(0.0, time.time() - pause.since))
                alert(f"No request is sent, for {since} now: {pause.why}", kind="note")
            _stages(now)
            _asked(now)
            if lines := runner.lines():
                Words("What the run says", "h2")
                Words("\n".join(lines), "pre", "mono")

    await tick()
    ui.timer(EVERY_S, tick)
    verdicts = box("div")

    async def count() -> None:
        if looked or not verdicts.default_slot.children:
            verdicts.clear()
            with verdicts:
                await _rejected(view)

    await count()
    ui.timer(COUNT_S, count, immediate=False)


def _buttons(view: PageView, runner: Runner) -> None:
    if not view.desk.allow_run:
        Words(
            "Runs are watched here. To start and pause them from this page, start it with --allow-run.",
            "p",
            "quiet",
        )
        return

    def act(what: str) -> None:
        try:
            if what == "start":
                runner.start()
                ui.notify("The run was started.")
            else:
                runner.pause()
                ui.notify("The run stops after what it is writing.")
        except UniBindError as error:
            ui.notify(str(error), type="warning")

    with box("div", "line"):
        for what, words in (("start", "Start or resume"), ("pause", "Pause")):
            button(words, partial(act, what), main=what == "start")


def _stages(now: RunProgress) -> None:
    if now.holder is not None:
        doing = f" at {now.holder.doing}" if now.holder.doing else ""
        since = duration(max(0.0, time.time() - now.holder.since))
        left = "" if now.left_s is None else f", about {duration(now.left_s)} left of it"
        Words(f"Process {now.holder.pid} on {now.holder.host} is at work{doing}, for {since}{left}.", "p")
    elif all(each.state == "done" for each in now.stages):
        Words("The run is finished.", "p")
    else:
        Words("Nothing is at work. “unibind run” continues where it stopped.", "p")

    def line(each: Any) -> list[Any]:
        words = _WORDS[each.state] + (f": {each.note}" if each.note else "")
        took = "" if each.seconds is None else duration(each.seconds)
        shards = f" ({each.shards} shards)" if each.shards > 1 else ""
        return [f"{_MARKS[each.state]} {each.name}", words + shards, took, counts_text(each.counts)]

    table("llrw", ("stage", "", "took", "counts"), [line(each) for each in now.stages], label="Stages")


def _asked(now: RunProgress) -> None:
    asked = now.requests
    if asked is None:
        return
    cost = "unknown" if asked.cost_usd is None else f"${asked.cost_usd:.4f}"
    Words("Requests", "h2")
    with box("dl", "facts"):
        rows = [
            ("answered", f"{asked.answered:,}"),
            ("failed for good", f"{asked.failed:,}"),
            ("known cost", cost),
        ]
        if asked.recent:
            rows += [
                ("in the last minute", f"{asked.recent:,} ({asked.recent / 60:.1f} a second)"),
                ("tokens written in it", f"{asked.recent_tokens:,}"),
                ("mean latency", "" if asked.latency_ms is None else f"{asked.latency_ms:,.0f} ms"),
            ]
        for name, value in rows:
            Words(name, "dt")
            Words(value, "dd")


async def _rejected(view: PageView) -> None:
    """Texts by gate, and samples by stage, as far as they are written."""
    if not view.opened.has_kb:
        return
    texts = await view.rows(
        "SELECT kind, status, count(*) AS n FROM v_descriptions GROUP BY ALL ORDER BY kind, n DESC"
    )
    samples = await view.rows("SELECT stage, count(*) AS n FROM v_rejects GROUP BY ALL ORDER BY stage")
    if texts:
        Words("Texts by the gates' verdicts", "h2")
        total = {
            kind: sum(row["n"] for row in texts if row["kind"] == kind) for kind in ("category", "sample")
        }
        rows = [
            (row["kind"], row["status"], f"{row['n']:,}", f"{row['n'] / total[row['kind']]:.1%}")
            for row in texts
        ]
        table("llrr", ("about a", "verdict", "texts", "share"), rows, label="Texts by verdict")
    Words("Quarantined samples", "h2")
    if not samples:
        Words("none", "p", "quiet")
        return
    table("lr", ("by", "samples"), [(row["stage"], f"{row['n']:,}") for row in samples], label="Quarantined")
    link("Each with its reason", view.to("/samples", state="quarantined"))
