"""The report's dot plot: the accuracy of the LLM centers over that of their controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.comparison import Row, anchor_names, anchor_title, centers_title, percent, split_title
from pipeline.report_html import Html, el, figure, join
from trainer.tasks import CENTERS

# The plot's own units; 300 wide, so that at phone width a unit is about a pixel.
_WIDTH, _LEFT, _RIGHT, _TOP, _STEP = 300.0, 52.0, 14.0, 22.0, 27.0


def accuracy_plots(rows: Sequence[Row]) -> Html:
    """One panel a split: the centers with their interval, the controls beneath, chance as a dashed line."""
    splits = dict.fromkeys(row.split for row in rows)
    highest = max((cell.high for row in rows for cell in row.cells().values()), default=1.0)
    limit = min(1.0, max(0.1, -(-highest // 0.1) * 0.1))
    panels = [_plot([row for row in rows if row.split == split], limit) for split in splits]
    names = [name for name in anchor_names(rows) if name != CENTERS]
    key = el(
        "ul",
        _key(_center_mark(8, 8, 2, 14), f"{centers_title(rows)}, 95% interval"),
        *(_key(_control_mark(name, 8, 8, False), anchor_title(name, rows)) for name in names),
        _key(_control_mark("class_name", 8, 8, True), "a control at or above the centers"),
        _key(el("line", x1=8, x2=8, y1=1, y2=15, stroke="var(--quiet)", stroke_dasharray="2 2"), "chance"),
        class_="key",
    )
    caption = "Top-1 accuracy. Controls stand below the line of the centers they are to be measured against."
    return figure(join([key, el("div", *panels, class_="panels charts")]), caption)


def _key(mark: Html, words: str) -> Html:
    return el("li", el("svg", mark, viewBox="0 0 16 16", aria_hidden="true"), words)


def _plot(rows: Sequence[Row], limit: float) -> Html:
    """A dot plot: one line a modality, the centers with their interval, the controls half a step below."""
    bottom = _TOP + _STEP * len(rows)
    span = _WIDTH - _LEFT - _RIGHT

    def at(share: float) -> float:
        return _LEFT + span * share / limit

    marks: list[Html] = [el("text", split_title(rows[0].split), x=0, y=9, class_="title")]
    step = 0.1 if limit <= 0.5 else 0.2
    for tick in _ticks(limit, step):
        marks.append(
            el(
                "line",
                x1=at(tick),
                x2=at(tick),
                y1=_TOP - 4,
                y2=bottom,
                stroke="var(--line)",
                stroke_width=0.6,
            )
        )
        label = f"{100 * tick:.0f}%" if tick == 0 or tick + step > limit + 1e-9 else f"{100 * tick:.0f}"
        marks.append(el("text", label, x=at(tick), y=bottom + 11, text_anchor="middle", class_="faint"))
    for number, row in enumerate(rows):
        y = _TOP + _STEP * number + 7
        chance = at(row.chance)
        marks.append(
            el(
                "line",
                x1=chance,
                x2=chance,
                y1=y - 7,
                y2=y + 18,
                stroke="var(--quiet)",
                stroke_dasharray="2 2",
            )
        )
        marks.append(el("text", row.modality, x=0, y=y + 3.5))
        marks += [
            _control_mark(name, at(cell.top1), y + 10, name in row.not_beaten())
            for name, cell in row.controls.items()
        ]
        if row.centers:
            centers = row.centers
            marks.append(_center_mark(at(centers.top1), y, at(centers.low), at(centers.high)))
    told = "; ".join(f"{row.modality} {percent(row.centers.top1)}%" for row in rows if row.centers)
    return el(
        "svg",
        el("title", f"{split_title(rows[0].split)}: {told}"),
        *marks,
        viewBox=f"0 0 {_WIDTH:.0f} {bottom + 16:.0f}",
        role="img",
    )


def _ticks(limit: float, step: float) -> Iterable[float]:
    return (round(step * number, 2) for number in range(int(limit / step + 1e-9) + 1))


def _center_mark(x: float, y: float, low: float, high: float) -> Html:
    return el(
        "g",
        el("line", x1=low, x2=high, y1=y, y2=y, stroke="var(--accent)", stroke_width=1.6),
        el("circle", cx=x, cy=y, r=3.6, fill="var(--accent)"),
    )


def _control_mark(name: str, x: float, y: float, warned: bool) -> Html:
    """Class name: circle; templates: diamond; random words: square; permuted: cross; others: triangle."""
    look = {
        "stroke": "var(--warn)" if warned else "var(--quiet)",
        "fill": "var(--warn)" if warned and name != "permuted" else "var(--paper)",
        "stroke_width": 1.2,
    }
    outlines = {
        "templates": f"M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4-4z",
        "random_words": f"M{x - 3:.1f} {y - 3:.1f}h6v6h-6z",
        "permuted": f"M{x - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6",
    }
    if name == "class_name":
        return el("circle", cx=x, cy=y, r=3.3, **look)
    return el("path", d=outlines.get(name, f"M{x:.1f} {y - 4:.1f}l4 7h-8z"), **look)
