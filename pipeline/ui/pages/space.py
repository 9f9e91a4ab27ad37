"""The map of the space: samples, centers and descriptions, before and after training; a click opens a point.

/space?which=after&by=category&x=…&y=…&z=…
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from nicegui import ui

from data.errors import UniBindError
from data.modality import MODALITIES
from pipeline.ui.canvas import PointMap
from pipeline.ui.cards import sample_card
from pipeline.ui.frame import PageView, Words, address, box, filters, later, link
from pipeline.ui.maps import MOST_SAMPLES, WHICH, PointCloud, point_cloud
from pipeline.ui.state import Desk

PATH, TITLE = "/space", "Space"
BY = {"kind": "modality", "category": "category", "state": "right or wrong", "writer": "who wrote it"}
SHOWN = 24  # of the samples within a lasso


async def show(view: PageView) -> None:
    """The choice of the map, and the map."""
    categories = await view.rows("SELECT category_id, name FROM v_categories ORDER BY category_id")
    names = {row["category_id"]: row["name"] for row in categories}
    trained = (view.opened.file.run / "heads.safetensors").is_file()
    usual = "after" if trained else "zero_shot"
    filters(
        view,
        {
            "which": ("Space", {"": WHICH[usual], **{k: v for k, v in WHICH.items() if k != usual}}),
            "by": ("Colour by", {"": BY["kind"], **{k: v for k, v in BY.items() if k != "kind"}}),
            "category": ("Only the category", names),
        },
    )
    which = view.one_of("which", WHICH, usual)
    await later(
        view,
        lambda: point_cloud(view.opened, which),
        lambda cloud: _map(view, which, cloud, list(names)),
        "Drawing the map; the first time takes some seconds …",
    )


def _map(view: PageView, which: str, cloud: PointCloud, categories: list[str]) -> None:
    spot: Any = None

    def pick(number: int) -> None:
        if not 0 <= number < len(cloud.ids):
            return
        page = "/sample" if cloud.kind(number) in MODALITIES else "/text"
        ui.navigate.to(view.to(page, id=cloud.ids[number]))

    async def lasso(numbers: list[int]) -> None:
        spot.clear()
        with spot:
            await _inside(view, cloud, [number for number in numbers if 0 <= number < len(cloud.ids)])

    made = PointMap(
        address(f"/space/{view.opened.key}", which=which),
        alt=f"map of the space {WHICH[which]}: {len(cloud.ids):,} points",
        on_pick=pick,
        on_lasso=lasso,
    )
    only = view.get("category")
    made.look(by=view.one_of("by", BY, "kind"), only=categories.index(only) if only in categories else -1)
    if cloud.left_out:
        Words(
            f"{cloud.left_out:,} more are left out: at most {MOST_SAMPLES:,} samples are drawn.", "p", "quiet"
        )
    Words(
        "A t-SNE map of some hundred landmarks, every other point among its nearest: neighbours are close,"
        " distances between clusters mean nothing. Before training, the features share no space with texts.",
        "p",
        "quiet",
    )
    spot = box("div", "", aria_live="polite")


async def _inside(view: PageView, cloud: PointCloud, numbers: list[int]) -> None:
    """What lies within the lasso."""
    kinds = Counter(cloud.kind(number) for number in numbers)
    Words("Within the lasso", "h2")
    if not numbers:
        Words("nothing", "p", "quiet")
        return
    Words(", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common()), "p", "quiet")
    ids = [cloud.ids[number] for number in numbers if cloud.kind(number) in MODALITIES][:SHOWN]
    texts = [cloud.ids[number] for number in numbers if cloud.kind(number) not in MODALITIES][:SHOWN]
    holes = ", ".join("?" * len(ids)) or "NULL"
    rows = await view.rows(
        "SELECT sample_id, modality, split, c.name FROM v_samples"
        " LEFT JOIN v_categories AS c USING (category_id)"
        f" WHERE sample_id IN ({holes})",
        ids,
    )
    said = await asyncio.to_thread(
        view.opened.texts_of, [row["sample_id"] for row in rows if row["modality"] == "text"]
    )
    with box("div", "cards"):
        for row in rows:
            sample_card(
                view,
                row["sample_id"],
                row["modality"],
                row["name"] or "no category",
                row["split"],
                text=said.get(row["sample_id"]),
            )
    holes = ", ".join("?" * len(texts)) or "NULL"
    found = await view.rows(f"SELECT row_id, text FROM v_descriptions WHERE row_id IN ({holes})", texts)
    with box("ul"):
        for row in found:
            with box("li"):
                link(row["text"], view.to("/text", id=row["row_id"]))


async def points(desk: Desk, project: str, request: Request) -> Response:
    """The points of a map, for static/map.js."""
    try:
        opened = desk.project(project)
        cloud = await asyncio.to_thread(point_cloud, opened, request.query_params.get("which", "after"))
    except UniBindError as error:
        return PlainTextResponse(f"{error}\n", 404)
    return Response(cloud.body, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})
