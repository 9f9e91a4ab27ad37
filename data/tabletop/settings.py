"""The settings of the sample world."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval, Le, MultipleOf
from pydantic import TypeAdapter, ValidationError

from data.errors import ProjectError


@dataclass(frozen=True)
class TabletopSettings:
    """The sample world: 24 categories, `objects_per_category` objects each, seven samples per object."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    # `codes`: categories are called by part numbers, and notes tell what they are (data/tabletop/notes.py)
    names: Literal["words", "codes"] = "words"
    objects_per_category: Annotated[int, Interval(ge=3, le=999)] = 16  # one at least for train, val and test
    image_px: Annotated[int, Interval(ge=32, le=1024)] = 224  # side of the picture
    # Side of the film and the event sensor: even for 4:2:0 colour, no higher than N-Caltech101's sensor.
    video_px: Annotated[int, Interval(ge=32, le=180), MultipleOf(2)] = 128
    video_frames: Annotated[int, Interval(ge=4, le=120)] = 16  # over one second
    points: Annotated[int, Interval(ge=128, le=100_000)] = 2048  # of a point cloud


def check_settings(settings: TabletopSettings) -> None:
    """Refuse settings out of bounds. Raises one ProjectError that names every mistake."""
    try:
        TypeAdapter(TabletopSettings).validate_json(json.dumps(asdict(settings)), strict=True)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, one['loc']))} = {one['input']!r}: {one['msg']}" for one in error.errors()
        )
        raise ProjectError(f"settings of the sample world: {mistakes}") from error
