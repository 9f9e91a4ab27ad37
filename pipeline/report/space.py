"""The report's pictures of the space: test samples in the plane, by modality and by category.

The plane comes from trainer/evaluate/maps/space.py (t-SNE, which keeps neighbours only: distances between
clusters and the axes have no meaning, and the page says so). The page has SVG, which follows light and dark
mode; the README has `space.png`.
"""

from __future__ import annotations

import colorsys
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.files import atomic_path
from data.modality import MODALITIES
from data.show import shorten, visible
from pipeline.html.elements import Html, el, figure, join, section
from pipeline.html.labels import RING, Label, place_labels
from pipeline.html.style import MODALITY_COLOURS
from trainer.evaluate.maps.space import CENTER, SpaceMap

_SIDE = 330.0  # width of a panel in its own units, about pixels on a phone
_MARGIN = 20.0
_ROUNDS = 8  # modalities are drawn in turns, so that the last does not hide the others
_MOST_LABELS = 40
_LABEL_CHARS = 24

Plane = npt.NDArray[np.float64]
Spots = dict[int, tuple[float, float]]  # category -> x, y

_TITLES = {
    "before": "Before: frozen features",
    "after": "After: the unified space",
    "zero_shot": "Without training: the shared space",
}


def first_map(pictures: Mapping[str, SpaceMap]) -> Html:
    """The best picture of the space, by modality and by category; a sentence where there is none."""
    if not pictures:
        return el("p", "There are no test samples to draw.")
    name = _best(pictures)
    return _figure({name: pictures[name]}, _hues(pictures))


def space_section(pictures: Mapping[str, SpaceMap]) -> Html | None:
    """Panels by modality and by category for each picture, and how to read them; None without one."""
    return section("space", "The space before", _figure(pictures, _hues(pictures))) if pictures else None


def _figure(pictures: Mapping[str, SpaceMap], hues: Mapping[int, int]) -> Html:
    panels: list[Html] = []
    for name, picture in pictures.items():
        xy_N2, height = fitted(picture.xy_N2)
        title = _TITLES.get(name, name.replace("_", " "))
        panels.append(el("div", el("h3", f"{title}, by modality"), _by_modality(picture, xy_N2, height)))
        panels.append(
            el("div", el("h3", f"{title}, by category"), _by_category(picture, xy_N2, height, hues))
        )
    kinds = {kind for picture in pictures.values() for kind in picture.kinds}
    key = el("ul", *(_key(kind) for kind in MODALITIES if kind in kinds), class_="key")
    content = join([key, el("div", *panels, class_="panels wide")])
    return figure(content, _words(pictures))


def _words(pictures: Mapping[str, SpaceMap]) -> str:
    words = ["Each dot is a test sample; neighbours are close, other distances have no meaning (t-SNE)."]
    if "before" in pictures:
        words.append("Frozen features share no space with texts: no centers, no text samples.")
    if set(pictures) - {"before"}:
        words.append(
            "Good: modalities mixed, categories separate. A ring is the mean of a category’s centers."
        )
    return " ".join(words)


def _key(kind: str) -> Html:
    dot = el("circle", cx=8, cy=8, r=4, fill=f"var(--{kind})")
    return el("li", el("svg", dot, viewBox="0 0 16 16", aria_hidden="true"), kind)


def fitted(xy_N2: Plane) -> tuple[Plane, float]:
    """The points moved and scaled into a panel, y pointing down, and the panel's height.

    The panel is `_SIDE` wide and from half as high to as high, as the points need, with a margin.
    """
    low_2, high_2 = xy_N2.min(axis=0), xy_N2.max(axis=0)
    scale = (_SIDE - 2 * _MARGIN) / (float((high_2 - low_2).max()) or 1.0)
    height = max(_SIDE / 2, scale * float(high_2[1] - low_2[1]) + 2 * _MARGIN)
    placed: Plane = (xy_N2 - (low_2 + high_2) / 2) * np.array([scale, -scale])
    return placed + np.array([_SIDE / 2, height / 2]), height


def _by_modality(picture: SpaceMap, xy_N2: Plane, height: float) -> Html:
    marks = [
        _dots(xy_N2[rows], class_=f"dot m-{kind}")
        for turn in range(_ROUNDS)
        for kind in MODALITIES
        if (rows := [row for row, own in enumerate(picture.kinds) if own == kind][turn::_ROUNDS])
    ]
    return _panel(marks, height, "test samples, coloured by modality")


def _by_category(picture: SpaceMap, xy_N2: Plane, height: float, hues: Mapping[int, int]) -> Html:
    samples, centers = _samples_and_centers(picture)
    by_category: dict[int, list[int]] = {}
    for row in samples:
        by_category.setdefault(int(picture.category_N[row]), []).append(row)
    marks = [
        _dots(xy_N2[rows], class_="dot hue", style=f"--h:{hues[category]}")
        for category, rows in sorted(by_category.items())
    ]
    for row in centers:
        x, y = xy_N2[row]
        style = f"--h:{hues[int(picture.category_N[row])]}"
        marks.append(el("circle", cx=x, cy=y, r=RING, class_="ring hue", style=style))
    for label in labels(picture, xy_N2, height):
        if label.leader:
            (x1, y1), (x2, y2) = label.leader
            marks.append(el("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="leader"))
        at = {"x": label.x, "y": label.y + 3}
        marks.append(el("text", label.words, **at, text_anchor="middle", class_="halo label"))
    return _panel(marks, height, "test samples, coloured by category")


def _panel(marks: Sequence[Html], height: float, title: str) -> Html:
    frame = el("rect", width=_SIDE, height=height, class_="frame")
    view = f"0 0 {_SIDE:.0f} {height:.0f}"
    return el("svg", el("title", title), frame, *marks, viewBox=view, role="img")


def _dots(xy_N2: Plane, *, class_: str, style: str | None = None) -> Html:
    """Many dots in one path: strokes of length 0 with round ends, ten bytes per dot."""
    return el("path", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in xy_N2), class_=class_, style=style)


def _samples_and_centers(picture: SpaceMap) -> tuple[list[int], list[int]]:
    """The rows of labelled samples and those of centers."""
    known = [row for row, category in enumerate(picture.category_N) if category >= 0]
    samples = [row for row in known if picture.kinds[row] != CENTER]
    return samples, [row for row in known if picture.kinds[row] == CENTER]


def _spots(picture: SpaceMap, xy_N2: Plane) -> Spots:
    """The place of each category: at its center, or else in the middle of its samples."""
    samples, centers = _samples_and_centers(picture)
    rows_of: dict[int, list[int]] = {}
    for row in centers or samples:
        rows_of.setdefault(int(picture.category_N[row]), []).append(row)
    middles = {category: np.median(xy_N2[rows], axis=0) for category, rows in sorted(rows_of.items())}
    return {category: (float(x), float(y)) for category, (x, y) in middles.items()}


def _hues(pictures: Mapping[str, SpaceMap]) -> dict[int, int]:
    """A hue in degrees for each category, the same in every picture.

    The hues step by the golden angle around the unified space, so that neighbours there differ.
    """
    picture = pictures[_best(pictures)]
    xy_N2, height = fitted(picture.xy_N2)
    spots = _spots(picture, xy_N2)
    angles = {one: round(math.atan2(y - height / 2, x - _SIDE / 2), 6) for one, (x, y) in spots.items()}
    placed = sorted(angles, key=lambda one: (angles[one], one))
    everywhere = {int(number) for one in pictures.values() for number in one.category_N if number >= 0}
    ordered = placed + sorted(everywhere - set(placed))
    return {category: round(place * 137.508) % 360 for place, category in enumerate(ordered)}


def _best(pictures: Mapping[str, SpaceMap]) -> str:
    """The name of the best picture: the unified space if there is one."""
    return next(name for name in ("after", "zero_shot", *pictures) if name in pictures)


def labels(picture: SpaceMap, xy_N2: Plane, height: float) -> list[Label]:
    """The categories' names, placed on the map.

    Several modalities without centers have no labels, as a category is not in one place. Of more than forty
    categories, those with the most points are named.
    """
    _, centers = _samples_and_centers(picture)
    if not centers and len(set(picture.kinds)) > 1:
        return []
    spots = _spots(picture, xy_N2)
    counts = np.bincount(picture.category_N[picture.category_N >= 0], minlength=len(picture.categories))
    named = sorted(spots, key=lambda category: (-counts[category], category))[:_MOST_LABELS]
    words = {category: shorten(picture.categories[category], _LABEL_CHARS) for category in named}
    return place_labels(spots, words, size=(_SIDE, height), dots_N2=xy_N2)


def write_space_png(pictures: Mapping[str, SpaceMap], target: Path) -> None:
    """Write the best picture as a PNG, for the README."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name = _best(pictures)
    picture = pictures[name]
    space = _TITLES.get(name, name).rpartition(": ")[2].capitalize()
    xy_N2, height = fitted(picture.xy_N2)
    with mpl.rc_context({"font.family": ["DejaVu Sans"], "font.size": 8}):
        drawing = Figure(figsize=(10.4, 1 + 4.9 * height / _SIDE), dpi=160, facecolor="white")
        FigureCanvasAgg(drawing)
        left, right = drawing.subplots(1, 2)
        _draw_modalities(left, picture, xy_N2)
        _draw_categories(right, picture, xy_N2, height, _hues(pictures))
        for axes, title in ((left, "by modality"), (right, "by category")):
            axes.set(xlim=(0, _SIDE), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
            axes.set_title(f"{space}, {title}", loc="left", size=9, color="#222222")
            axes.spines[:].set_color("#dddddd")
        drawing.subplots_adjust(wspace=0.04)
        with atomic_path(target) as temporary, _boxes_noted(target):
            drawing.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})


@contextmanager
def _boxes_noted(target: Path) -> Iterator[None]:
    """Print one note for all letters that the font lacks, in place of a warning for each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = [each for each in caught if "missing from font" in str(each.message)]
    for each in caught:
        if each not in missing:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if missing:
        note = f"{target.name}: {len(missing):,} letters of names are drawn as boxes; the font lacks them"
        print(f"  note: {note}", file=sys.stderr, flush=True)


def _draw_modalities(axes: Any, picture: SpaceMap, xy_N2: Plane) -> None:
    kinds = [kind for kind in MODALITIES if kind in picture.kinds]
    order = _in_turns([[row for row, own in enumerate(picture.kinds) if own == kind] for kind in kinds])
    colours = [MODALITY_COLOURS[picture.kinds[row]][0] for row in order]
    axes.scatter(*xy_N2[order].T, s=11, c=colours, linewidths=0)
    for kind in kinds:
        axes.scatter([], [], s=22, c=MODALITY_COLOURS[kind][0], label=kind)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncol": len(kinds)}
    axes.legend(**below, frameon=False, handletextpad=0, columnspacing=0.8)


def _draw_categories(
    axes: Any, picture: SpaceMap, xy_N2: Plane, height: float, hues: Mapping[int, int]
) -> None:
    from matplotlib.patheffects import withStroke

    samples, centers = _samples_and_centers(picture)
    colours = [_rgb(hues[int(picture.category_N[row])]) for row in samples]
    axes.scatter(*xy_N2[samples].T, s=11, c=colours, linewidths=0)
    edges = [_rgb(hues[int(picture.category_N[row])], 0.36) for row in centers]
    axes.scatter(*xy_N2[centers].T, s=44, facecolors="none", edgecolors=edges, linewidths=1.3)
    halo = [withStroke(linewidth=1.6, foreground="white")]
    for label in labels(picture, xy_N2, height):
        if label.leader:
            axes.plot(*zip(*label.leader, strict=True), color="#999999", linewidth=0.6)
        words = visible(label.words).replace("$", r"\$")
        look = {"ha": "center", "va": "center", "size": 6.5, "color": "#222222", "path_effects": halo}
        axes.text(label.x, label.y, words, **look)
    if centers:
        note = "rings: the mean of a category’s embedding centers"
        axes.text(0.5, -0.025, note, ha="center", va="top", color="#555555", transform=axes.transAxes)


def _in_turns(groups: Sequence[Sequence[int]]) -> list[int]:
    """One item of each group in turn, so that no group hides the others."""
    longest = max((len(group) for group in groups), default=0)
    return [group[turn] for turn in range(longest) for group in groups if turn < len(group)]


def _rgb(hue: int, lightness: float = 0.47) -> tuple[float, float, float]:
    return colorsys.hls_to_rgb(hue / 360, lightness, 0.62)
