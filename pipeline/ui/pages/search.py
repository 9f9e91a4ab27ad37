"""The first page: search by words, a dropped file or a sample, or by several of these together.

/?q=WORDS&sample=ID&file=ID     each may stand several times; the parts are added up
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nicegui import events, ui

from data.errors import UniBindError
from data.modality import EXTENSIONS, MODALITIES
from data.show import shorten
from pipeline.predict.answers import Hit, NamedCategory
from pipeline.predict.search import Query
from pipeline.ui.canvas import Drop
from pipeline.ui.cards import sample_card
from pipeline.ui.frame import PageView, Words, alert, bar, box, button, chip, later, link, picture
from pipeline.ui.security import MOST_FILE
from pipeline.ui.state import Opened, Timed, query_of

PATH, TITLE = "/", "Search"
TOP = 8
KINDS = ("q", "sample", "file")
MOST_PARTS = 6
_WHY_CHARS = 160


class QueryPart(NamedTuple):
    """A part of the query as the address has it."""

    kind: str
    value: str


class _Shown(NamedTuple):
    timed: Timed
    texts: dict[str, str]  # of text samples, by sample id


async def show(view: PageView) -> None:
    """The form, the parts of the query, and what was found."""
    parts = [QueryPart(kind, value) for kind in KINDS for value in view.ask.getlist(kind) if value.strip()]
    parts = parts[:MOST_PARTS]
    _form(view, parts)
    if not view.opened.has_kb:
        alert("This project has no knowledge base yet: run it first.", kind="note")
        return
    if not parts:
        await _start(view)
        return
    with box("div", "line"):
        for part in parts:
            _part(view, parts, part)
    try:
        queries = [query_of(view.opened, view.desk, *part) for part in parts]
    except UniBindError as error:
        alert(error)
        return
    await later(view, lambda: _search(view.opened, queries), lambda done: _results(view, done), "Searching …")


def _search(opened: Opened, queries: Sequence[Query]) -> _Shown:
    timed = opened.search(queries, top=TOP)
    ids = [hit.sample_id for hits in timed.found.hits.values() for hit in hits if hit.modality == "text"]
    return _Shown(timed, opened.texts_of(ids))


def _form(view: PageView, parts: Sequence[QueryPart]) -> None:
    """The field for words, and the place to drop a file."""
    only = parts[0].value if len(parts) == 1 and parts[0].kind == "q" else ""
    with box("div", "ask", role="search"):
        words = ui.input("Words", value=only, placeholder="a red ball rolling on wood")
        words.classes("words search-words").props("outlined clearable autofocus maxlength=2000")
        together = ui.checkbox("add to the query below").props("dense").classes("" if parts else "hidden")

        def go() -> None:
            if text := (words.value or "").strip():
                ui.navigate.to(_address(view, [*(parts if together.value else ()), QueryPart("q", text)]))

        words.on("keydown.enter", go)
        button("Search", go, main=True)

    async def take(event: events.UploadEventArguments) -> None:
        identity, path = view.desk.uploads.new_path(event.file.name)
        await event.file.save(path)
        upload = await asyncio.to_thread(view.desk.uploads.keep, identity, event.file.name, path)
        if upload.modality is None:
            _ask_modality(view, identity, path, event.file.name, parts if together.value else ())
            return
        ui.navigate.to(_address(view, [*(parts if together.value else ()), QueryPart("file", identity)]))

    drop = Drop(
        label="or drop a picture, sound, cloud, mesh, thermal picture, video or event recording here",
        max_file_size=MOST_FILE,
        on_upload=take,
    )
    drop.props["accept"] = ",".join(sorted(EXTENSIONS)) + ",.tif,.tiff,.dat,.raw"


def _ask_modality(view: PageView, identity: str, path: Path, name: str, before: Sequence[QueryPart]) -> None:
    with ui.dialog(value=True), ui.card():
        Words(f"What is {name}?", "p")
        with box("div", "line"):
            for modality in MODALITIES:

                def choose(modality: str = modality) -> None:
                    view.desk.uploads.keep(identity, name, path, modality)
                    ui.navigate.to(_address(view, [*before, QueryPart("file", identity)]))

                button(modality, choose)


def _address(view: PageView, parts: Sequence[QueryPart]) -> str:
    return view.to(PATH, **{kind: [part.value for part in parts if part.kind == kind] for kind in KINDS})


def _part(view: PageView, parts: Sequence[QueryPart], part: QueryPart) -> None:
    """One part of the query, with a link that takes it out."""
    with box("span", "part"):
        if part.kind == "q":
            Words(f"“{part.value}”")
        else:
            name, thumb = part.value, {"sample": part.value}
            if part.kind == "file":
                thumb = {"file": part.value}
                try:
                    upload = view.desk.uploads.get(part.value)
                except UniBindError:
                    upload = None
                name = upload.name if upload else "a dropped file"
                if upload and upload.modality == "text":
                    thumb = {}
            if thumb:
                picture(view.media("thumb", **thumb), f"the query {name}")
            Words(shorten(name, 40))
        rest = [each for each in parts if each != part]
        link("×", _address(view, rest), "remove", aria_label=f"remove {part.value} from the query")


def _results(view: PageView, done: _Shown) -> None:
    found = done.timed.found
    how = ", ".join(dict.fromkeys(found.models))
    Words(
        f"{found.searched:,} samples in {done.timed.search_ms:.0f} ms, the query encoded in"
        f" {done.timed.encode_ms:.0f} ms ({how})",
        "p",
        "quiet",
    ).mark("timing")
    Words("Nearest categories", "h2")
    answers(view, found.answers)
    Words("Nearest samples", "h2")
    with box("div", "columns"):
        for modality in MODALITIES:
            if modality in found.hits:
                column(view, modality, found.hits[modality], done.texts)


def answers(view: PageView, found: Sequence[NamedCategory]) -> None:
    """Categories, best first, each with its score and the description that spoke for it."""
    best = max((answer.score for answer in found), default=1.0)
    with box("ol", "answers"):
        for answer in found:
            with box("li"):
                link(answer.category, view.to("/category", id=answer.category_id))
                with box("span", "value"):
                    Words(
                        f"{answer.score:.3f}" if answer.probability is None else f"{answer.probability:.0%}"
                    )
                with box("span", "why"):
                    if answer.probability is not None:
                        bar(answer.probability, f"score {answer.score:.3f}")
                    elif best > 0:
                        bar(answer.score / best)
                    Words(f" {shorten(answer.why, _WHY_CHARS)}")


def column(
    view: PageView, modality: str, hits: Sequence[Hit], texts: dict[str, str], *, label: str = "{} samples"
) -> None:
    """Samples of one modality, nearest first, as cards under its name; `label` is for screen readers."""
    with box("section", aria_label=label.format(modality)):
        with box("h3"):
            chip(modality)
        with box("div", "cards-in"):
            for hit in hits:
                sample_card(
                    view,
                    hit.sample_id,
                    modality,
                    hit.category or "no category",
                    f"{hit.score:.3f}",
                    text=texts.get(hit.sample_id),
                )


async def _start(view: PageView) -> None:
    """What to try: words of the project's own, and a few of its samples."""
    names = await view.rows("SELECT name FROM v_categories ORDER BY hash(category_id) LIMIT 4")
    Words("Search the project's samples and categories by meaning, across modalities.", "p")
    with box("p", "line"):
        Words("Try ", "span", "quiet")
        for row in names:
            link(row["name"], view.to(PATH, q=row["name"]))
    samples: list[dict[str, Any]] = await view.rows(
        "SELECT sample_id, modality, category_id FROM v_samples WHERE modality <> 'text'"
        " QUALIFY row_number() OVER (PARTITION BY modality ORDER BY hash(sample_id)) = 1"
    )
    if samples:
        Words("Or one of its own samples", "h2")
        with box("div", "cards"):
            for row in samples:
                sample_card(
                    view,
                    row["sample_id"],
                    row["modality"],
                    row["modality"],
                    "",
                    note="search by it",
                    target=view.to(PATH, sample=row["sample_id"]),
                )
