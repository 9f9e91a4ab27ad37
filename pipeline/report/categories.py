"""The report's section on single categories: how many samples are recognised, and as what.

Read from named.parquet: the answers of the run's model by the LLM centers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.reads import reading
from data.show import shorten
from pipeline.accuracies import percent, split_title
from pipeline.html.elements import Child, Html, el, figure, join, section, table
from trainer.evaluate.outcomes import NAMED_FILE
from trainer.evaluate.tasks import CENTERS
from trainer.inputs import KnowledgeBase

_MOST = 40  # categories in the matrix; of more, those with the most errors
_CELL, _LABEL = 12.0, 92.0  # in the drawing's own units
_NAME_CHARS = 20
_ORDER = (("seen_among_all", "unseen_among_all"), ("seen", "unseen"), ("unseen",), ("seen",))

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answered:
    """How often samples of a category (row) were given each category (column): int64[C, C].

    `none_C` counts samples without any answer. `splits` are the tasks that the counts are of.
    """

    splits: tuple[str, ...]
    counts_CC: Counts
    none_C: Counts

    @property
    def totals(self) -> Counts:
        """The samples of each category."""
        found: Counts = self.counts_CC.sum(axis=1) + self.none_C
        return found


def answered(base: KnowledgeBase, run: Path) -> Answered | None:
    """The answers for test samples, with as many categories as candidates as the run has; None without any.

    Text samples are left out where there are others, as in every mean.
    """
    path = run / NAMED_FILE
    if not reading(path).exists():
        return None
    columns = ["model", "split", "anchors", "modality", "category_id", "named", "hit"]
    rows = pq.read_table(reading(path), columns=columns)
    rows = rows.filter(pc.equal(rows["anchors"], CENTERS))
    models = set(pc.unique(rows["model"]).to_pylist())
    rows = rows.filter(pc.equal(rows["model"], "aligned" if "aligned" in models else "zero_shot"))
    media = rows.filter(pc.not_equal(rows["modality"], "text"))
    rows = media if len(media) else rows
    there = set(pc.unique(rows["split"]).to_pylist())
    splits = next((each for each in _ORDER if set(each) <= there), None)
    if splits is None:
        return None
    rows = rows.filter(pc.is_in(rows["split"], value_set=pa.array(splits)))
    # A sample with several categories that was given any of them counts as right for its first.
    named = pc.if_else(rows["hit"], rows["category_id"], rows["named"])
    counts = pa.table({"true": rows["category_id"], "named": named}).group_by(["true", "named"])
    size = len(base.categories)
    counts_CC, none_C = np.zeros((size, size), np.int64), np.zeros(size, np.int64)
    for row in counts.aggregate([([], "count_all")]).to_pylist():
        true = base.index[row["true"]]
        if row["named"] is None:
            none_C[true] += row["count_all"]
        else:
            counts_CC[true, base.index[row["named"]]] += row["count_all"]
    return Answered(splits, counts_CC, none_C)


def categories_section(base: KnowledgeBase, run: Path) -> Html | None:
    """Accuracy by category, and the confusion matrix; None where nothing was answered."""
    found = answered(base, run)
    if found is None or not found.totals.any():
        return None
    right_C = found.counts_CC.diagonal()
    shown = np.flatnonzero(found.totals)
    worst = shown[np.argsort(right_C[shown] / found.totals[shown], kind="stable")]
    among_all = all(split.endswith("_among_all") for split in found.splits)
    where = " and ".join(split_title(split.removesuffix("_among_all")) for split in found.splits)
    where += ", with all categories to choose from" if among_all else ""
    return section(
        "categories",
        "Category by category",
        el("p", f"Test samples of every modality but text ({where}).", class_="sub"),
        _bars(base, worst[:_MOST], right_C, found.totals, left=len(worst) - _MOST),
        _matrix(base, found, worst),
    )


def _bars(base: KnowledgeBase, shown: Counts, right_C: Counts, n_C: Counts, *, left: int) -> Html:
    """The share of each category's samples that are recognised, the lowest first."""
    items = []
    for category in shown.tolist():
        share = right_C[category] / n_C[category]
        bar = el("span", el("span", class_="bar", style=f"width:{100 * share:.1f}%"), class_="track")
        name = el("span", shorten(base.names[category], _NAME_CHARS * 2), class_="name")
        items.append(el("li", name, bar, el("span", f"{percent(share)}% of {n_C[category]}", class_="of")))
    more = f" {left} more are better." if left > 0 else ""
    return figure(
        el("ul", *items, class_="shares"), f"Share of each category’s samples that are recognised.{more}"
    )


def _matrix(base: KnowledgeBase, found: Answered, worst: Counts) -> Html:
    """The confusion matrix as a drawing, and the most frequent confusions in words."""
    kept = np.sort(worst[:_MOST])
    inner_CC = found.counts_CC[np.ix_(kept, kept)]
    share_CC = inner_CC / np.maximum(1, found.totals[kept])[:, None]
    n = len(kept)
    top, side = _LABEL, _LABEL + _CELL * n
    marks: list[Html] = [el("rect", x=_LABEL, y=top, width=_CELL * n, height=_CELL * n, class_="frame")]
    for at, category in enumerate(kept.tolist()):
        name = shorten(base.names[category], _NAME_CHARS)
        y, x = top + _CELL * at + _CELL * 0.75, _LABEL + _CELL * at + _CELL * 0.75
        marks.append(el("text", name, x=_LABEL - 4, y=y, text_anchor="end", class_="small"))
        turned = f"translate({x:.1f} {top - 4:.1f}) rotate(-90)"
        marks.append(el("text", name, transform=turned, class_="small"))
    for row, column in np.argwhere(inner_CC).tolist():
        words = (
            f"{base.names[kept[row]]}: {inner_CC[row, column]} of {found.totals[kept[row]]}"
            f" recognised as {base.names[kept[column]]}"
        )
        marks.append(
            el(
                "rect",
                el("title", words),
                x=_LABEL + _CELL * column + 0.5,
                y=top + _CELL * row + 0.5,
                width=_CELL - 1,
                height=_CELL - 1,
                class_="right" if row == column else "wrong",
                fill_opacity=max(0.06, float(share_CC[row, column])),
            )
        )
    view = f"0 0 {side:.0f} {side:.0f}"
    title = f"confusion matrix of {n} categories; rows are the true ones"
    drawing = el("svg", el("title", title), *marks, viewBox=view, role="img", class_="matrix")
    cut = f" The {n} with the lowest accuracy." if len(worst) > n else ""
    caption = (
        "Rows: true category; columns: the one it was recognised as; blue is right, rust is wrong, darker is"
        f" more often.{cut}"
    )
    return join([figure(drawing, caption), _most_frequent(base, found)])


def _most_frequent(base: KnowledgeBase, found: Answered) -> Child:
    wrong_CC = found.counts_CC.copy()
    np.fill_diagonal(wrong_CC, 0)
    order = np.argsort(-wrong_CC, axis=None, kind="stable")[:10]
    rows: Sequence[Sequence[Child]] = [
        [
            shorten(base.names[true], 40),
            shorten(base.names[named], 40),
            f"{wrong_CC[true, named]} of {found.totals[true]}",
        ]
        for true, named in zip(*np.unravel_index(order, wrong_CC.shape), strict=True)
        if wrong_CC[true, named]
    ]
    if not rows:
        return ""
    return el(
        "details",
        el("summary", "The most frequent confusions in numbers"),
        table("llr", ["category", "recognised as", "samples"], rows),
    )
