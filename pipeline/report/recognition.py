"""The report's sections on recognition: the LLM centers beside their controls, as sentences, plot and table.

All of it is read from `metrics`; pipeline/accuracies.py makes the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data.modality import MODALITIES
from pipeline.accuracies import (
    SPLITS,
    Accuracy,
    AccuracyRow,
    anchor_names,
    anchor_title,
    centers_title,
    media,
    model_title,
    not_measured,
    percent,
    place,
    points,
    recognition_rows,
    split_mean,
    split_title,
    verdict,
)
from pipeline.html.elements import Child, Html, el, figure, join, line, section, table
from trainer.evaluate.tasks import CENTERS
from trainer.settings import Scorer

# Each scorer as a rule.
SCORERS: dict[Scorer, str] = {
    "nearest": "nearest center",
    "logsumexp": "soft maximum over each category’s centers (logsumexp)",
    "mean": "mean of each category’s centers",
    "medoid": "each category’s most central center (medoid)",
}


# When a difference is significant, by whether both sides were compared sample by sample.
_SIGNIFICANCE = {
    True: (
        "Both sides of a row are measured on the same samples, and the lead of one over the other has its "
        "own interval, resampled over objects: where it excludes 0, the difference is significant; where it "
        "includes 0, it may be due to chance."
    ),
    False: (
        "Both sides of a row are measured on the same samples: where intervals do not overlap, the "
        "difference is significant; where they do, it may be due to chance."
    ),
}


_MORE = {"top1": "top-1", "top5": "top-5", "mean_recall": "mean recall", "map": "mAP"}
# The plot's own units: 300 wide, so that a unit is about a pixel on a phone.
_WIDTH, _LEFT, _RIGHT, _TOP, _STEP = 300.0, 52.0, 14.0, 22.0, 27.0


def scorer_of(metrics: Mapping[str, Any]) -> Scorer:
    """The scorer of the run; `nearest` where nothing was scored."""
    scorers: list[Scorer] = [row["scorer"] for row in metrics.get("recognition", ())]
    return scorers[0] if scorers else "nearest"


def recognition_section(metrics: Mapping[str, Any]) -> Html:
    """Recognition by the run's model: the verdict, the plot, the table."""
    rows = recognition_rows(metrics)
    if not rows:
        words = el("p", "No labelled sample could be scored.")
        return section("recognition", "Recognition", words, _not_measured(metrics))
    return section(
        "recognition",
        "Recognition, beside its controls",
        el("p", f"Model: {model_title(rows)}. Rule: {SCORERS[scorer_of(metrics)]}.", class_="sub"),
        el("ul", *(el("li", sentence) for sentence in verdict(rows))),
        _not_measured(metrics),
        accuracy_plots(rows),
        _result_table(rows),
        _fine_print(rows),
        _leads(rows),
        _more_measures(metrics["recognition"], centers_title(rows)),
    )


def _not_measured(metrics: Mapping[str, Any]) -> Child:
    """The modalities without a row, and why; empty where every modality has one."""
    reasons = not_measured(metrics)
    if not reasons:
        return ""
    return join([el("p", el("strong", "Not measured:")), el("ul", *(el("li", each) for each in reasons))])


def zero_shot_section(metrics: Mapping[str, Any]) -> Html:
    """The same for the zero-shot encoder, unless that is the run's own model."""
    rows, own = recognition_rows(metrics, "zero_shot"), recognition_rows(metrics)
    if not rows:
        words = "The run has no labelled sample of a modality that its zero-shot encoder takes."
        return section("zero-shot", "Zero-shot, without training", el("p", words))
    if own and all(row.model == "zero_shot" for row in own):
        words = "This run was not trained: its table above is the zero-shot table."
        return section("zero-shot", "Zero-shot, without training", el("p", words))
    modalities = ", ".join(dict.fromkeys(row.modality for row in rows))
    return section(
        "zero-shot",
        "Zero-shot, without training",
        el(
            "p",
            "The same samples and centers, but without heads: the frozen encoder maps into the text space. "
            f"Modalities: {modalities}.",
        ),
        el("ul", *(el("li", sentence) for sentence in verdict(rows))),
        _result_table(rows),
        _leads(rows),
        _more_measures(metrics["zero_shot"], centers_title(rows)),
    )


def _fine_print(rows: Sequence[AccuracyRow]) -> Html:
    counts = {
        name: sorted({row.cells()[name].k for row in rows if name in row.cells()})
        for name in anchor_names(rows)
    }
    numbers = ", ".join(
        f"{anchor_title(name, rows)} {ks[0] if len(ks) == 1 else f'{ks[0]}–{ks[-1]}'}"
        for name, ks in counts.items()
    )
    noted = "Raw notes: the category’s notes as they are. " if "notes" in counts else ""
    return el(
        "p",
        f"Class name: the bare name. {noted}Templates: the name in prompt templates. Random words: the name "
        f"with words drawn at random. Permuted: another category’s {centers_title(rows)}. "
        f"Texts per category at most: {numbers}. Intervals are by bootstrap. "
        f"{_SIGNIFICANCE[bool(rows) and all(row.paired() for row in rows)]} An interval of width 0 (all "
        "right or all wrong) says little where n is small.",
        class_="note",
    )


def _result_table(rows: Sequence[AccuracyRow]) -> Html:
    names = anchor_names(rows)
    columns = f"l{'r' * (len(names) + 2)}l"
    body: list[Html] = []
    for split in dict.fromkeys(row.split for row in rows):
        block = [row for row in rows if row.split == split]
        body.append(el("tr", el("th", split_title(split), colspan=len(columns)), class_="group"))
        body += [line(columns, _table_row(row, names)) for row in block]
        mean = split_mean(block, split)
        if mean is not None and len(mean.modalities) > 1:
            numbers = [percent(mean.top1[name]) if name in mean.top1 else "–" for name in names]
            title = f"mean of {len(mean.modalities)}"
            body.append(
                line(columns, [title, *numbers, percent(mean.chance), f"{mean.n:,}", ""], class_="mean")
            )
    caption = (
        "Top-1 accuracy in percent, with its 95% interval. Bold: the best of the row. Marked: a control at "
        f"or above the {centers_title(rows)}; named at the right, bold where "
        f"{'its lead is significant' if all(row.paired() for row in rows) else 'intervals do not overlap'}."
    )
    if len(media(rows)) < len(rows):
        caption += " Means leave text out, which is in the text space already."
    head = ["", *(anchor_title(name, rows) for name in names), "chance", "n", "not beaten"]
    return el("div", table(columns, head, body, caption=caption), class_="pinned")


def _leads(rows: Sequence[AccuracyRow]) -> Child:
    """The lead of the LLM centers over each control, with the paired interval; empty if not measured."""
    names = [name for name in anchor_names(rows) if name != CENTERS]
    columns = f"l{'r' * len(names)}"
    body: list[Html] = []
    for split in dict.fromkeys(row.split for row in rows):
        block = [row for row in rows if row.split == split and any(c.lead for c in row.controls.values())]
        if block:
            body.append(el("tr", el("th", split_title(split), colspan=len(columns)), class_="group"))
        body += [line(columns, [row.modality, *(_lead(row, name) for name in names)]) for row in block]
    if not body:
        return ""
    caption = (
        f"The lead of the {centers_title(rows)} over a control in percentage points, its 95% interval by a "
        "paired bootstrap over objects, and p of McNemar’s exact test (which assumes independent samples). "
        "Bold: the interval excludes 0. Of many 95% intervals, one in twenty misses the true value."
    )
    head = ["", *(f"over {anchor_title(name, rows)}" for name in names)]
    summary = el("summary", "The lead over each control, compared sample by sample")
    whole = el("div", table(columns, head, body, caption=caption), class_="pinned")
    return el("details", summary, whole)


def _lead(row: AccuracyRow, name: str) -> Child:
    control = row.controls.get(name)
    if control is None or control.lead is None:
        return "–"
    lead = control.lead
    sure = name in row.clearly_above() or name in row.clearly_below()
    kind = "over" if lead.high < 0 else None
    number = el("b" if sure else "span", points(lead.value), class_=kind)
    p = "" if lead.p is None else f", p {lead.p:.3f}" if lead.p >= 0.001 else ", p < 0.001"
    return join([number, el("span", f"{points(lead.low)} to {points(lead.high)}{p}", class_="ci")])


def _more_measures(records: Sequence[Mapping[str, Any]], centers: str) -> Child:
    """Top-5, mean recall and mean average precision of the LLM centers; empty if not measured."""
    measured = (r for r in records if r["anchors"] == CENTERS and r.get("mean_recall") is not None)
    shown = sorted(measured, key=lambda r: (place(SPLITS, r["split"]), place(MODALITIES, r["modality"])))
    if not shown:
        return ""
    body: list[Html] = []
    for split in dict.fromkeys(record["split"] for record in shown):
        body.append(el("tr", el("th", split_title(split), colspan=5), class_="group"))
        body += [
            line("lrrrr", [record["modality"], *(_percent(record.get(name)) for name in _MORE)])
            for record in shown
            if record["split"] == split
        ]
    caption = (
        "Percent. Mean recall: the mean over categories of the share of their samples recognised, so that "
        "small categories count as much as large ones. mAP: the mean over categories of the average "
        "precision of the samples ranked by that category’s score."
    )
    summary = el("summary", f"Other measures of the {centers}: top-5, mean recall, mAP")
    return el("details", summary, table("lrrrr", ["", *_MORE.values()], body, caption=caption))


def _percent(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _table_row(row: AccuracyRow, names: Sequence[str]) -> list[Child]:
    cells, best, warned, sure = row.cells(), row.best(), row.not_beaten(), row.clearly_above()
    numbers = [
        _number(name, cells[name], best=best, warned=warned) if name in cells else "–" for name in names
    ]
    titles = [el("b" if name in sure else "span", anchor_title(name, [row])) for name in warned]
    tag = el("span", join(titles, ", "), class_="tag") if titles else ""
    return [row.modality, *numbers, percent(row.chance), f"{row.n:,}", tag]


def _number(name: str, cell: Accuracy, *, best: Sequence[str], warned: Sequence[str]) -> Html:
    classes = [
        kind
        for kind, is_so in (("best", name in best), ("center", name == CENTERS), ("over", name in warned))
        if is_so
    ]
    number = el("span", percent(cell.top1), class_=" ".join(classes) or None)
    return join([number, el("span", f"{percent(cell.low)}–{percent(cell.high)}", class_="ci")])


def accuracy_plots(rows: Sequence[AccuracyRow]) -> Html:
    """One panel per split: the centers with their interval, the controls below, chance as a dashed line."""
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
    caption = "Top-1 accuracy. The controls of a modality are drawn below its centers."
    return figure(join([key, el("div", *panels, class_="panels charts")]), caption)


def _key(mark: Html, words: str) -> Html:
    return el("li", el("svg", mark, viewBox="0 0 16 16", aria_hidden="true"), words)


def _plot(rows: Sequence[AccuracyRow], limit: float) -> Html:
    """A dot plot: a row per modality, the centers with their interval, the controls below them."""
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
    words = "; ".join(f"{row.modality} {percent(row.centers.top1)}%" for row in rows if row.centers)
    return el(
        "svg",
        el("title", f"{split_title(rows[0].split)}: {words}"),
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
