"""The report's section on what the descriptions gain where they may not repeat the name.

All of it is read from `metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.accuracies import percent, points, split_title
from pipeline.description_gain import Gain, gains
from pipeline.html.elements import Child, Html, el, join, line, section, table

_MODELS = {"aligned": "aligned heads", "zero_shot": "zero-shot"}


def description_section(metrics: Mapping[str, Any]) -> Html:
    """Bare name, name-free texts and the gain, by model, split and modality; empty where not measured."""
    rows = gains(metrics)
    if not rows:
        return Html("")
    first = rows[0]
    left = f"{first.texts:.1f} per category on average, {first.fewest:,} in the category with the fewest"
    if first.without:
        left += f" ({first.without:,} categories have none)"
    words = (
        "Texts that repeat a name in other words help by that alone, whatever they say. Here each category "
        "has its bare name once, and its centers’ texts with the name taken out (“The thing rings when "
        "struck”): what these gain over the bare name, they gain by description (after Ma et al., arXiv "
        f"2412.11917). Texts that were left: {left}."
    )
    body: list[Html] = []
    columns = "lrrrrrl"
    for model, split in dict.fromkeys((row.model, row.split) for row in rows):
        title = f"{_MODELS.get(model, model)}: {split_title(split)}"
        body.append(el("tr", el("th", title, colspan=len(columns)), class_="group"))
        body += [
            line(columns, _cells(row), class_="mean" if row.modality is None else None)
            for row in rows
            if (row.model, row.split) == (model, split)
        ]
    head = ["", "class name", "name-free", "gain", "p", "n", "verdict"]
    caption = (
        "Top-1 accuracy in percent on the same samples; the gain in points with its 95% interval by a paired "
        "bootstrap over objects; p of McNemar’s exact test, of means of a test that swaps the two by object."
    )
    return section(
        "descriptions",
        "By description alone",
        el("p", words, class_="sub"),
        el("div", table(columns, head, body, caption=caption), class_="pinned"),
    )


def _cells(row: Gain) -> list[Child]:
    gain = el("span" if row.verdict == "may be chance" else "b", points(row.gain))
    interval = el("span", f"{points(row.low)} to {points(row.high)}", class_="ci")
    return [
        "mean" if row.modality is None else row.modality,
        percent(row.class_name),
        percent(row.name_free),
        join([gain, interval]),
        "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
        f"{row.n:,}",
        row.verdict,
    ]
