"""The report's section on what to trust: training against none, trained against untrained, other splits.

All of it is read from `metrics`; pipeline/trust.py makes the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.accuracies import percent, points
from pipeline.html.elements import Child, Html, el, join, line, section, table
from pipeline.trust import (
    METHOD_TITLES,
    MODEL_TITLES,
    ModelShare,
    Repeated,
    Stacked,
    Trusted,
    choices,
    repeated,
    shown_split,
    stacked,
    trusted,
    with_mean,
)


def trust_section(metrics: Mapping[str, Any], use: str = "auto") -> Html | None:
    """What training changed on the same samples, calibrated stacking, repeated splits; None without heads."""
    found = trusted(metrics, use)
    if not found:
        return None
    rows, splits = stacked(metrics, use), repeated(metrics)
    whole = [each.to_text() for each in splits if each.shots is None]
    said = [*choices(found), *([whole[-1]] if whole and whole[-1] else [])]
    return section(
        "trust",
        "What to trust",
        el("ul", *(el("li", sentence) for sentence in said)),
        _stacking(rows),
        _training(found),
        _repeats(splits),
    )


def _training(found: Sequence[Trusted]) -> Child:
    compared = [each for each in found if len(each.models) > 1]
    if not compared:
        return ""
    body: list[Html] = []
    for each in compared:
        body.append(el("tr", el("th", each.modality, colspan=5), class_="group"))
        for split, shares in each.shares.items():
            cells: list[Child] = [shown_split(split)]
            cells += [_share(shares.get(model), bold=model == each.used) for model in MODEL_TITLES]
            body.append(line("lrrrr", [*cells, f"{each.n[split]:,}"]))
    head = ["", *MODEL_TITLES.values(), "n"]
    caption = "Top-1 in percent on the same samples, by the LLM centers. Bold: what `unibind predict` uses."
    whole = el("div", table("lrrrr", head, body, caption=caption), class_="pinned")
    return el("details", el("summary", "What training changed, in numbers"), whole)


def _share(share: ModelShare | None, *, bold: bool = False) -> Child:
    if share is None:
        return "–"
    number = el("b" if bold else "span", percent(share.top1))
    if share.low is None or share.high is None:
        return number
    return join([number, el("span", f"{percent(share.low)}–{percent(share.high)}", class_="ci")])


def _stacking(rows: Sequence[Stacked]) -> Child:
    if not rows:
        return ""
    body: list[Html] = []
    for row in with_mean(rows):
        cells: list[Child] = [row.modality, "" if row.constant is None else f"{row.constant:.3f}"]
        cells += [percent(value) for value in (row.seen, row.unseen, row.harmonic)]
        cells += [percent(row.seen_stacked), percent(row.unseen_stacked)]
        cells.append(_share(ModelShare(row.harmonic_stacked, row.low, row.high), bold=True))
        body.append(line("lrrrrrrr", cells, class_="mean" if row.constant is None else None))
    caption = (
        "Trained and untrained categories compete: top-1 in percent of each kind’s samples, and H, their "
        "harmonic mean. Heads score trained categories higher, so a constant is taken off (calibrated "
        "stacking), found by holding out trained categories in turn, never by samples of untrained ones."
    )
    head = [
        "",
        "constant",
        "trained",
        "untrained",
        "H",
        "trained, with it",
        "untrained, with it",
        "H, with it",
    ]
    return el("div", table("lrrrrrrr", head, body, caption=caption), class_="pinned")


def _repeats(rows: Sequence[Repeated]) -> Child:
    if not rows:
        return ""
    methods = [name for name in METHOD_TITLES if any(name in row.shares for row in rows)]
    columns = f"lr{'r' * len(methods)}"
    body = [
        line(
            columns,
            [
                row.modality,
                "all" if row.shots is None else str(row.shots),
                *(_repeat(row.shares.get(name), name) for name in methods),
            ],
        )
        for row in rows
    ]
    caption = (
        f"Means over {rows[0].n_splits} splits drawn again by object, in percent, with 95% intervals that "
        "allow for shared samples; below, how far the heads are ahead."
    )
    head = ["", "shots", *(METHOD_TITLES[name] for name in methods)]
    whole = el("div", table(columns, head, body, caption=caption), class_="pinned")
    return el("details", el("summary", "Repeated splits, in numbers"), whole)


def _repeat(share: ModelShare | None, method: str) -> Child:
    if share is None or share.lead is None or method == "heads":
        return _share(share)
    bounds = ""
    if share.lead_low is not None and share.lead_high is not None:
        bounds = f" ({points(share.lead_low)} to {points(share.lead_high)})"
    return join([_share(share), el("span", f"{points(share.lead)}{bounds}", class_="ci")])
