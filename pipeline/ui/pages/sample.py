"""One sample: shown or played, its descriptions, answers, neighbours, and its object in other modalities."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from data.errors import InputError, UniBindError
from data.modality import MODALITIES
from pipeline.predict.answers import NamedCategory
from pipeline.predict.search import Found, Query
from pipeline.ui.canvas import Cloud, Frames
from pipeline.ui.cards import sample_card
from pipeline.ui.frame import PageView, Words, alert, box, chip, later, link, picture
from pipeline.ui.media import EVENT_FRAMES, playable, thermal_scale, video_frames
from pipeline.ui.pages.search import answers, column
from pipeline.ui.state import Opened, SampleRow

PATH, TITLE = "/sample", "Sample"
TOP = 6


async def show(view: PageView) -> None:
    """Everything about the sample that the address names."""
    sample = await asyncio.to_thread(view.opened.sample, view.get("id"))
    (named,) = await view.rows(
        "SELECT (SELECT name FROM v_categories WHERE category_id = ?) AS name", [sample.category_id]
    )
    Words(sample.sample_id, "p", "mono")
    with box("div", "sight"):
        with box("div"):
            await _sight(view, sample)
        with box("div"):
            _facts(view, sample, named["name"])
            await _descriptions(view, sample)
    await _object(view, sample)
    await later(
        view,
        lambda: _place(view.opened, sample),
        lambda placed: _placed(view, sample, placed),
        "Loading the models …",
    )


async def _sight(view: PageView, sample: SampleRow) -> None:
    """The sample as it is: picture, player, turning cloud, film, words."""
    alt = f"{sample.modality} sample {sample.sample_id}"
    try:
        file = await asyncio.to_thread(view.opened.file_of, sample)
        if sample.modality == "text":
            texts = await asyncio.to_thread(view.opened.texts_of, [sample.sample_id], most=20_000)
            Words(texts[sample.sample_id], "blockquote", "text-sample")
        elif sample.modality == "point":
            Cloud(view.media("cloud", sample=sample.sample_id), alt)
        elif sample.modality == "video" and playable(sample.uri):
            film = box(
                "video", src=view.media("film", sample=sample.sample_id), preload="metadata", aria_label=alt
            )
            film.props["controls"] = film.props["loop"] = film.props["muted"] = film.props["playsinline"] = (
                True
            )
        elif sample.modality == "video":
            count = await asyncio.to_thread(video_frames, file)
            Frames(view.media("frames", sample=sample.sample_id), count, alt)
        elif sample.modality == "event" and not sample.uri.lower().endswith((".png", ".jpg", ".jpeg")):
            Frames(view.media("frames", sample=sample.sample_id), EVENT_FRAMES, alt)
            Words("Red: brightness grows, blue: it fades. Equal spans of time.", "p", "sub")
        else:
            picture(view.media("whole", sample=sample.sample_id), alt, "whole", lazy=False)
        if sample.modality == "audio":
            Words("Log-mel spectrogram: time to the right, frequency upwards, −60 to 0 dB.", "p", "sub")
            player = box("audio", src=view.media("sound", sample=sample.sample_id), aria_label=f"play {alt}")
            player.props["controls"] = True
        if sample.modality == "thermal":
            scale = await asyncio.to_thread(thermal_scale, file)
            box("div", "ramp", aria_hidden="true")
            with box("div", "scale"):
                Words(f"{scale['low']:g} {scale['unit']}")
                Words(f"{scale['high']:g} {scale['unit']}")
    except UniBindError as error:
        alert(error)


def _facts(view: PageView, sample: SampleRow, category: str | None) -> None:
    with box("dl", "facts"):
        Words("modality", "dt")
        with box("dd"):
            chip(sample.modality)
        Words("category", "dt")
        with box("dd"):
            if sample.category_id is None:
                Words("none given")
            else:
                link(category or sample.category_id, view.to("/category", id=sample.category_id))
        for name, value in (("split", sample.split), ("object", sample.object_id), ("file", sample.uri)):
            if value is not None:
                Words(name, "dt")
                Words(value, "dd")
    link("Search by this sample", view.to("/", sample=sample.sample_id), "button")


async def _descriptions(view: PageView, sample: SampleRow) -> None:
    rows = await view.rows(
        "SELECT row_id, text, status, reason, model_resolved AS model, source FROM v_descriptions"
        " WHERE kind = 'sample' AND sample_id = ? ORDER BY status <> 'ok', row_id LIMIT 50",
        [sample.sample_id],
    )
    given = await view.rows(
        "SELECT text FROM v_given_descriptions WHERE sample_id = ? LIMIT 20", [sample.sample_id]
    )
    if not rows and not given:
        return
    Words("Its own descriptions", "h2")
    with box("ul"):
        for row in rows:
            with box("li"):
                Words(row["text"], "span", "" if row["status"] == "ok" else "struck")
                why = (
                    row["model"]
                    if row["status"] == "ok"
                    else f"{row['status']}: {row['reason'] or row['model']}"
                )
                Words(f" {why}", "span", "sub")
                Words(" ")
                link("why", view.to("/text", id=row["row_id"]), "sub", aria_label="provenance of this text")
        for row in given:
            with box("li"):
                Words(row["text"])
                Words(" from the manifest", "span", "sub")


async def _object(view: PageView, sample: SampleRow) -> None:
    """The same object in other modalities."""
    if sample.object_id is None:
        return
    rows = await view.rows(
        "SELECT sample_id, modality, split FROM v_samples WHERE object_id = ? AND sample_id <> ?"
        " ORDER BY modality, sample_id LIMIT 40",
        [sample.object_id, sample.sample_id],
    )
    if not rows:
        return
    Words("The same object in other modalities", "h2")
    ids = [row["sample_id"] for row in rows if row["modality"] == "text"]
    texts = await asyncio.to_thread(view.opened.texts_of, ids)
    order = {name: place for place, name in enumerate(MODALITIES)}
    with box("div", "strip", tabindex=0):
        for row in sorted(rows, key=lambda row: order.get(row["modality"], 9)):
            sample_card(
                view,
                row["sample_id"],
                row["modality"],
                row["modality"],
                "",
                note=row["split"],
                text=texts.get(row["sample_id"]),
            )


class _Placed(NamedTuple):
    answers: Sequence[NamedCategory]
    model: str
    found: Found
    texts: dict[str, str]


def _place(opened: Opened, sample: SampleRow) -> _Placed | None:
    searcher = opened.searcher()
    try:
        placed = searcher.place(Query(None, sample.sample_id, is_sample=True))
    except InputError:
        return None
    best = searcher.answers([placed], top=5)
    found = searcher.search([placed], top=TOP, without=[sample.sample_id])
    ids = [hit.sample_id for hits in found.hits.values() for hit in hits if hit.modality == "text"]
    return _Placed(best, placed.model, found, opened.texts_of(ids))


def _placed(view: PageView, sample: SampleRow, placed: _Placed | None) -> None:
    Words("Answers", "h2")
    if placed is None:
        alert(
            "This sample has no vector in the text space: it was quarantined, or its modality has no head.",
            kind="note",
        )
        return
    own = sample.category_id
    verdict = ""
    if own is not None:
        own_ids = (own, *(sample.more_category_ids or ()))
        verdict = ": right" if placed.answers[0].category_id in own_ids else ": wrong"
    Words(f"by the {placed.model}, among all categories{verdict}", "p", "quiet")
    answers(view, placed.answers)
    Words("Nearest samples", "h2")
    with box("div", "columns"):
        for modality in MODALITIES:
            if hits := placed.found.hits.get(modality):
                column(view, modality, hits, placed.texts, label="nearest {} samples")
