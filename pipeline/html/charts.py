"""Small SVG charts for the reports: line charts, and dot charts with intervals.

Written by hand, 300 units wide, so that a unit is about a pixel on a phone. The style sheet has the colours.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from data.show import shorten
from pipeline.html.elements import Html, el

WIDTH = 300.0
_LEFT, _RIGHT, _TOP = 34.0, 10.0, 16.0
_ROW = 30.0
_LABEL_CHARS = 38

Look = Literal["strong", "second", "third", "fourth"]
Mark = Literal["full", "open", "chance", "tick"]

# Distinguishable without colour: by dashes, and by filled or open points.
_STROKES: dict[Look, tuple[str, str | None]] = {
    "strong": ("var(--accent)", None),
    "second": ("var(--quiet)", "5 2.5"),
    "third": ("var(--warn)", "1.5 2.5"),
    "fourth": ("var(--ink)", "8 2 1.5 2"),
}
LOOKS: tuple[Look, ...] = ("strong", "second", "third", "fourth")


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps `low`…`high` to `start`…`end` in the chart's units; ticks every `step`."""

    low: float
    high: float
    step: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The position of a number."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """The ticks from end to end."""
        return [self.low + self.step * turn for turn in range(round((self.high - self.low) / self.step) + 1)]

    def label(self, value: float, *, percent: bool) -> str:
        """A number with as many decimals as the ticks have, or as a percentage."""
        step = 100 * self.step if percent else self.step
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        return f"{100 * value + 0.0:.{places}f}%" if percent else f"{value + 0.0:.{places}f}"


def axis_over(values: Iterable[float], *, start: float, end: float, most: int = 5) -> Axis:
    """An axis with round ends around all values and at most about `most` steps of 1, 2 or 5 × a power of ten.

    Raises ValueError where there is no value.
    """
    found = list(values)
    low, high = min(found), max(found)
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(max(span / most, sys.float_info.min)))
    step = next(power * one for one in (1, 2, 5, 10) if power * one * most >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        last = first + 1
    return Axis(first * step, last * step, step, start, end)


@dataclass(frozen=True, slots=True)
class ChartLine:
    """A line through points (x, y), in the order of x; `intervals` are (x, low, high)."""

    name: str
    points: tuple[tuple[float, float], ...]
    look: Look = "strong"
    intervals: tuple[tuple[float, float, float], ...] = ()


def line_chart(
    lines: Sequence[ChartLine],
    *,
    title: str,
    x_title: str,
    percent: bool = False,
    dots: bool = False,
    height: float = 120.0,
    level: tuple[float, str] | None = None,
    marked: tuple[float, str] | None = None,
    x_ticks: Sequence[float] | None = None,
) -> Html:
    """Lines over a common x. `level` is a marked y with its name, `marked` a marked x.

    With `x_ticks`, the given numbers are evenly spaced on the axis: for 1, 2, 4, 8, …
    """
    places = {value: float(turn) for turn, value in enumerate(x_ticks or ())}

    def placed(value: float) -> float:
        return places[value] if places else value

    bottom = _TOP + height
    y_values = [y for line in lines for _, y in line.points]
    y_values += [end for line in lines for _, *ends in line.intervals for end in ends]
    y_axis = axis_over([*y_values, *([level[0]] if level else ())], start=bottom, end=_TOP)
    x_values = [placed(x) for line in lines for x, _ in line.points]
    x_axis = axis_over([*x_values, *([marked[0]] if marked else ())], start=_LEFT, end=WIDTH - _RIGHT)
    if places:
        x_axis = Axis(-0.3, len(places) - 0.7, 1.0, _LEFT, WIDTH - _RIGHT)
    marks: list[Html] = []
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        marks.append(el("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        words = y_axis.label(tick, percent=percent)
        marks.append(el("text", words, x=_LEFT - 4, y=y + 3, text_anchor="end", class_="faint"))
    for x, words in (
        [(x_axis.at(place), f"{value:g}") for value, place in places.items()]
        if places
        else [(x_axis.at(tick), x_axis.label(tick, percent=False)) for tick in x_axis.ticks()]
    ):
        marks.append(el("text", words, x=x, y=bottom + 12, text_anchor="middle", class_="faint"))
    marks.append(el("text", x_title, x=WIDTH - _RIGHT, y=bottom + 24, text_anchor="end", class_="faint"))
    if level:
        y = y_axis.at(level[0])
        marks.append(el("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="chance"))
        marks.append(el("text", level[1], x=WIDTH - _RIGHT, y=y - 3, text_anchor="end", class_="faint halo"))
    if marked:
        x = x_axis.at(marked[0])
        marks.append(el("line", x1=x, x2=x, y1=_TOP - 4, y2=bottom, class_="chance"))
        at = min(max(x, _LEFT + 32), WIDTH - 36)  # keeps the words inside
        marks.append(el("text", marked[1], x=at, y=_TOP - 7, text_anchor="middle", class_="faint"))
    for turn, line in enumerate(lines):
        aside = 2.0 * (turn - (len(lines) - 1) / 2) if places else 0.0  # so that intervals do not overlap
        marks += _drawn(line, [x_axis.at(placed(x)) + aside for x, _ in line.points], y_axis, dots=dots)
        stroke = _STROKES[line.look][0]
        for x, low, high in line.intervals:
            at = x_axis.at(placed(x)) + aside
            marks.append(el("line", x1=at, x2=at, y1=y_axis.at(low), y2=y_axis.at(high), stroke=stroke))
    view = f"0 0 {WIDTH:.0f} {bottom + 28:.0f}"
    return el("svg", el("title", title), *marks, viewBox=view, role="img")


def _drawn(line: ChartLine, xs: Sequence[float], y_axis: Axis, *, dots: bool) -> list[Html]:
    stroke, dashes = _STROKES[line.look]
    ys = [y_axis.at(y) for _, y in line.points]
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    path = el("path", d=f"M{way}", fill="none", stroke=stroke, stroke_width=1.4, stroke_dasharray=dashes)
    if not dots and len(xs) > 1:
        return [path]
    spots = [
        el("circle", cx=x, cy=y, r=2.6, stroke=stroke, fill="var(--paper)" if dashes else stroke)
        for x, y in zip(xs, ys, strict=True)
    ]
    return [path, *spots]


def line_key(lines: Iterable[tuple[str, Look]]) -> Html:
    """The names of lines with their strokes, each name once."""
    items = []
    for name, look in dict.fromkeys(lines):
        stroke, dashes = _STROKES[look]
        mark = el("line", x1=0, x2=24, y1=8, y2=8, stroke=stroke, stroke_width=2, stroke_dasharray=dashes)
        sample = el("svg", mark, viewBox="0 0 24 16", class_="long", aria_hidden="true")
        items.append(el("li", sample, name))
    return el("ul", *items, class_="key")


@dataclass(frozen=True, slots=True)
class Dot:
    """A number on a row's line, with its interval if it has one.

    `chance` is a short dashed stroke, `tick` a small one: a single value behind a mean.
    """

    value: float
    mark: Mark = "full"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class DotRow:
    """One row of a dot chart: its label, the value as text at the right, its dots below them.

    `colour` is one of the style sheet's; default: the accent, or quiet for rows that are not strong.
    """

    label: str
    value: str
    dots: tuple[Dot, ...]
    strong: bool = True
    colour: str | None = None


def dot_chart(
    rows: Sequence[DotRow],
    *,
    title: str,
    percent: bool = False,
    include: Sequence[float] = (),
    level: float | None = None,
) -> Html:
    """Rows of dots over one axis. `level`: a line through all rows, at the ideal or the reference.

    The axis holds every dot, interval, the level and the numbers to `include`.
    """
    values = [*include, *([level] if level is not None else ())]
    for dot in (dot for row in rows for dot in row.dots):
        values += [one for one in (dot.value, dot.low, dot.high) if one is not None]
    axis = axis_over(values, start=6.0, end=WIDTH - 6.0)
    bottom = _ROW * len(rows) + 2
    marks: list[Html] = []
    tops = [_ROW * number for number in range(len(rows))]
    for tick in axis.ticks():
        x, words = axis.at(tick), axis.label(tick, percent=percent)
        marks.append(_strips(x, tops, "grid"))
        marks.append(el("text", words, x=x, y=bottom + 11, text_anchor="middle", class_="faint"))
    if level is not None:
        marks.append(_strips(axis.at(level), tops, "level"))
    for top, row in zip(tops, rows, strict=True):
        kind = "title" if row.strong else None
        marks.append(el("text", shorten(row.label, _LABEL_CHARS), x=0, y=top + 9, class_=kind))
        marks.append(el("text", row.value, x=WIDTH, y=top + 9, text_anchor="end", class_=kind))
        colour = row.colour or ("var(--accent)" if row.strong else "var(--quiet)")
        for dot in row.dots:
            marks += _dot(dot, axis, top + 19, colour)
    view = f"0 0 {WIDTH:.0f} {bottom + 15:.0f}"
    return el("svg", el("title", title), *marks, viewBox=view, role="img")


def _strips(x: float, tops: Sequence[float], kind: str) -> Html:
    """A vertical line through the dots of all rows that does not cross their words."""
    return el("path", d="".join(f"M{x:.1f} {top + 12.5:.1f}v13" for top in tops), class_=kind)


def _dot(dot: Dot, axis: Axis, y: float, colour: str) -> list[Html]:
    x = axis.at(dot.value)
    if dot.mark == "chance":
        return [el("line", x1=x, x2=x, y1=y - 6.5, y2=y + 6.5, class_="chance")]
    if dot.mark == "tick":
        return [el("line", x1=x, x2=x, y1=y - 3.5, y2=y + 3.5, stroke=colour, stroke_width=0.8)]
    marks = []
    if dot.low is not None and dot.high is not None:
        ends = {"x1": axis.at(dot.low), "x2": axis.at(dot.high)}
        marks.append(el("line", **ends, y1=y, y2=y, stroke=colour, stroke_width=1.6))
    fill = "var(--paper)" if dot.mark == "open" else colour
    return [*marks, el("circle", cx=x, cy=y, r=3.6, stroke=colour, fill=fill, stroke_width=1.4)]


def dot_key(names: Iterable[tuple[Mark, str]]) -> Html:
    """The meaning of the marks."""
    axis = Axis(0.0, 1.0, 1.0, 0.0, 16.0)
    items = []
    for mark, name in names:
        drawing = _dot(Dot(0.5, mark), axis, 8, "var(--accent)")
        items.append(el("li", el("svg", *drawing, viewBox="0 0 16 16", aria_hidden="true"), name))
    return el("ul", *items, class_="key")
