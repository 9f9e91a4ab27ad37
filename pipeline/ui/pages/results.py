"""Results: recognition beside the controls, the confusion matrix, runs compared, and the whole report."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from nicegui import ui

from data.errors import InputError, UniBindError
from data.manifest.read import SPLITS
from data.modality import MODALITIES
from data.show import shorten
from pipeline.accuracies import (
    AccuracyRow,
    anchor_names,
    anchor_title,
    percent,
    points,
    recognition_rows,
    split_title,
    verdict,
)
from pipeline.compare.runs import Comparison, compare, open_run
from pipeline.compare.text import measure_title, p_text
from pipeline.ui.frame import (
    PageView,
    Words,
    address,
    alert,
    answers_ready,
    box,
    chip,
    filters,
    interval_bar,
    link,
    table,
)
from pipeline.ui.state import Desk, Opened
from trainer.evaluate.tasks import CENTERS

PATH, TITLE = "/results", "Results"
MOST_CATEGORIES = 30  # of the confusion matrix: those with the most mistakes
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; sandbox;"
    " frame-ancestors 'self'"
)


async def show(view: PageView) -> None:
    """The numbers of the run's evaluation, and what lies behind them."""
    metrics = await asyncio.to_thread(_metrics, view.opened)
    if metrics is None:
        alert("This project was not evaluated yet: run it to its stage evaluate.", kind="note")
        return
    _recognition(view, metrics)
    await _confusion(view)
    await _compared(view)
    _studies(view)
    if (view.opened.file.run / "report.html").is_file():
        Words("The report", "h2")
        with box("p"):
            link("open it alone", f"/report/{view.opened.key}")
        frame = box("iframe", "report", src=f"/report/{view.opened.key}", title="The report of this run")
        frame.props["loading"] = "lazy"
        frame.props["sandbox"] = ""


def _metrics(opened: Opened) -> dict[str, Any] | None:
    path = opened.file.run / "metrics.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _recognition(view: PageView, metrics: dict[str, Any]) -> None:
    for key, title in (("recognition", "Recognition"), ("zero_shot", "Without training")):
        rows = recognition_rows(metrics, key)
        if not rows:
            continue
        Words(title, "h2")
        if key == "recognition":
            for sentence in verdict(rows):
                Words(sentence, "p")
        names = [name for name in anchor_names(rows) if name != CENTERS]
        for split in dict.fromkeys(row.split for row in rows):
            block = [row for row in rows if row.split == split]
            Words(f"{split_title(split)}: top-1 in percent with its 95% interval", "h3")
            head = (
                "modality",
                anchor_title(CENTERS, rows),
                "",
                *(anchor_title(n, rows) for n in names),
                "chance",
                "n",
            )
            table(
                "lrl" + "r" * (len(names) + 2),
                head,
                [_line(row, names) for row in block],
                label=f"{title}, {split_title(split)}",
            )


def _line(row: AccuracyRow, names: list[str]) -> list[Any]:
    own = row.centers
    return [
        lambda: chip(row.modality),
        "–" if own is None else percent(own.top1),
        "" if own is None else (lambda: interval_bar(own.top1, own.low, own.high)),
        *(percent(row.controls[name].top1) if name in row.controls else "–" for name in names),
        percent(row.chance),
        f"{row.n:,}",
    ]


async def _confusion(view: PageView) -> None:
    """A matrix whose cells open the samples; of many categories, those with the most mistakes."""
    Words("Confusions", "h2")
    filters(
        view,
        {
            "modality": ("Modality", {name: name for name in MODALITIES}),
            "split": ("Split", {"" if name == "test" else name: name for name in SPLITS}),
        },
    )
    await answers_ready(view)
    split = view.one_of("split", SPLITS, "test")
    modality = view.one_of("modality", MODALITIES)
    rows = await view.rows(
        "SELECT s.category_id AS own, CASE WHEN list_contains(s.more_category_ids, a.named)"
        " THEN s.category_id ELSE a.named END AS named, count(*) AS n FROM v_samples AS s"
        " JOIN answers AS a USING (sample_id) WHERE s.category_id IS NOT NULL AND s.split = ?"
        " AND (? = '' OR s.modality = ?) GROUP BY ALL",
        [split, modality, modality],
        answers=True,
    )
    if not rows:
        alert("There is no answer for these samples.", kind="note")
        return
    names = {
        row["category_id"]: row["name"]
        for row in await view.rows("SELECT category_id, name FROM v_categories")
    }
    cells: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: Counter[str] = Counter()
    for row in rows:
        cells[row["own"]][row["named"]] += row["n"]
        if row["own"] != row["named"]:
            wrong[row["own"]] += row["n"]
            wrong[row["named"]] += row["n"]
    every = sorted(names, key=lambda one: (-wrong[one], names[one]))
    shown = sorted(every[:MOST_CATEGORIES], key=lambda one: names[one])
    right = sum(cells[one][one] for one in cells)
    total = sum(counts.total() for counts in cells.values())
    Words(
        f"{right:,} of {total:,} {modality} {split} samples are recognised among all categories."
        " Rows: what they are; columns: the answers. A cell opens its samples."
        + (f" The {MOST_CATEGORIES} categories with the most mistakes." if len(every) > len(shown) else ""),
        "p",
        "quiet",
    )
    with box("div", "scroll matrix", tabindex=0, role="region", aria_label="Confusion matrix"), box("table"):
        with box("thead"), box("tr"):
            Words("", "td")
            for one in shown:
                Words(shorten(names[one], 26), "th").props["scope"] = "col"
        with box("tbody"):
            for own in shown:
                with box("tr"):
                    Words(shorten(names[own], 26), "th").props["scope"] = "row"
                    for named in shown:
                        _cell(view, own, named, cells, names, split, modality)


def _cell(
    view: PageView,
    own: str,
    named: str,
    cells: dict[str, Counter[str]],
    names: dict[str, str],
    split: str,
    modality: str,
) -> None:
    count, of = cells[own][named], max(cells[own].total(), 1)
    share = count / of
    with box("td", "own" if own == named else "").style(f"--v: {share:.3f}"):
        if count:
            where = view.to("/samples", category=own, named=named, split=split, modality=modality)
            words = f"{names[own]} recognised as {names[named]}: {count} of {of}"
            link(str(count), where, title=words, aria_label=words)
        else:
            Words("")


async def _compared(view: PageView) -> None:
    """This run beside another one, paired on the same samples."""
    others = _other_runs(view.desk, view.opened)
    if not others:
        return
    Words("Compared with another run", "h2")
    ui.select(
        {"": "none", **{name: name for name in others}},
        value=view.get("beside") if view.get("beside") in others else "",
        label="Beside",
        on_change=lambda event: ui.navigate.to(view.here(beside=event.value)),
    ).props("dense outlined options-dense").classes("filter")
    chosen = others.get(view.get("beside"))
    if chosen is None:
        return
    try:
        done = await asyncio.to_thread(_compare, view.opened.file.run, chosen)
    except UniBindError as error:
        alert(error)
        return
    for note in done.notes:
        alert(note, kind="note")
    first, second = (described["name"] for described in done.runs)
    table(
        "lrrrrlrl",
        ("", "n", first, second, "difference", "", "p", "verdict"),
        [
            (
                measure_title(line),
                f"{line.n:,}",
                percent(line.first),
                percent(line.value),
                points(line.difference),
                f"{points(line.low)} to {points(line.high)}",
                p_text(line.p_holm),
                line.verdict,
            )
            for line in done.lines
        ],
        label="Comparison of two runs",
    )


def _compare(first: Path, second: Path) -> Comparison:
    return compare([open_run(first), open_run(second)])


def _other_runs(desk: Desk, opened: Opened) -> dict[str, Path]:
    """Evaluated runs of the opened projects, and beside this project's run folder: name -> folder."""
    folders = [each.file.run for each in desk.projects.values()]
    folders += sorted(path.parent for path in opened.file.run.parent.glob("*/metrics.json"))
    own = opened.file.run.resolve()
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.resolve() != own and (folder / "metrics.json").is_file():
            name = folder.name if folder.name not in found else f"{folder.name} ({len(found) + 1})"
            if folder not in found.values():
                found[name] = folder
    return found


def _studies(view: PageView) -> None:
    found = study_pages(view.opened)
    if not found:
        return
    Words("Studies", "h2")
    with box("ul"):
        for name in found:
            with box("li"):
                link(name, address(f"/report/{view.opened.key}", study=name))


def study_pages(opened: Opened) -> dict[str, Path]:
    """The pages of a project's finished studies, by name."""
    return {path.parent.name: path for path in sorted((opened.file.run / "studies").glob("*/study.html"))}


async def report(desk: Desk, project: str, request: Request) -> Response:
    """The report of a project's run, or of one of its studies: one file without scripts."""
    try:
        opened = desk.project(project)
        study = request.query_params.get("study")
        path = opened.file.run / "report.html" if study is None else study_pages(opened).get(study)
        if path is None or not path.is_file():
            raise InputError("there is no such report")
    except UniBindError as error:
        return PlainTextResponse(f"{error}\n", 404)
    headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"}
    return FileResponse(path, media_type="text/html", headers=headers)
