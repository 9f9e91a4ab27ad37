"""The report's section on training: curves of both loss terms, val accuracy and a learned temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data.reads import reading
from pipeline.accuracies import percent
from pipeline.html.charts import ChartLine, Look, line_chart, line_key
from pipeline.html.elements import Html, counted, el, figure, join, section
from trainer.align.heads import has_heads, load_heads

_MOST_POINTS = 300  # per line: more cannot be distinguished at this width

_LOSSES: tuple[tuple[str, str, Look], ...] = (
    ("against texts about the sample", "loss_description", "strong"),
    ("against its category’s centers", "loss_center", "second"),
)

_Points = tuple[tuple[float, float], ...]


def training_section(run: Path) -> Html | None:
    """The curves of `<run>/train_log.parquet` (trainer/align/checkpoint.py); None where nothing was trained.

    Raises TrainingError where the heads beside the log cannot be read.
    """
    log_path = run / "train_log.parquet"
    if not (has_heads(run) and reading(log_path).exists()):
        return None
    log = pq.ParquetFile(log_path).read().to_pylist()
    if not log:
        return None
    facts = load_heads(run).metadata
    kept = {m: (int(epoch), facts["val_top1"].get(m)) for m, epoch in sorted(facts["epochs"].items())}
    ends = {row["epoch"]: row["step"] for row in log}  # the last step of each epoch
    epochs = {epoch for epoch, _ in kept.values()}
    # One line where all modalities keep the same epoch; several would hide the curve.
    (same,) = epochs if len(epochs) == 1 else (None,)
    marked = (float(ends[same]), f"epoch {same} kept") if same in ends else None
    losses = [
        ChartLine(name, points, look)
        for name, column, look in _LOSSES
        if (points := thinned(_points(log, column)))
    ]
    panels = []
    if losses:
        chart = line_chart(losses, title=_description(losses), x_title="step", marked=marked)
        panels.append(el("div", el("h3", "Loss"), chart))
    top1 = _points(log, "val_top1")
    if top1:
        lines = [ChartLine("val top-1", thinned(top1))]
        chart = line_chart(lines, title=_description(lines), x_title="step", percent=True, marked=marked)
        panels.append(el("div", el("h3", "Top-1 on val samples, mean over modalities"), chart))
    temperatures = _points(log, "temperature")
    if len({value for _, value in temperatures}) > 1:  # else it was not learned
        lines = [ChartLine("temperature", thinned(temperatures))]
        chart = line_chart(lines, title=_description(lines), x_title="step", marked=marked)
        panels.append(el("div", el("h3", "Temperature"), chart))
    key = line_key([(line.name, line.look) for line in losses])
    content = join([key, el("div", *panels, class_="panels charts")])
    return section(
        "training",
        "Training",
        el("p", _summary(log, kept), class_="sub"),
        figure(content, _caption(log, has_val=bool(top1))),
    )


def _points(log: Sequence[Mapping[str, Any]], column: str) -> _Points:
    return tuple(
        (float(row["step"]), float(row[column]))
        for row in log
        if row.get(column) is not None and math.isfinite(row[column])
    )


def thinned(points: _Points, most: int = _MOST_POINTS) -> _Points:
    """At most `most` points, each the mean of equally many neighbours (the last of perhaps fewer)."""
    size = -(-len(points) // most)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups
    )


def _description(lines: Sequence[ChartLine]) -> str:
    """A chart in words, as its alternative text."""
    lines_text = (f"{one.name}: from {one.points[0][1]:.3g} to {one.points[-1][1]:.3g}" for one in lines)
    return "; ".join(lines_text)


def _summary(log: Sequence[Mapping[str, Any]], kept: Mapping[str, tuple[int, float | None]]) -> str:
    last = log[-1]
    words = f"{counted(last['step'], 'step')} in {counted(last['epoch'], 'epoch')}. Kept: "
    return (
        words
        + ", ".join(
            f"{modality} epoch {epoch}" + ("" if top1 is None else f" ({percent(top1)}% top-1 on val)")
            for modality, (epoch, top1) in kept.items()
        )
        + "."
    )


def _caption(log: Sequence[Mapping[str, Any]], *, has_val: bool) -> str:
    words = "Good: both loss terms fall and level off. "
    if has_val:
        words += (
            "Each modality keeps the last epoch whose top-1 on val samples of trained categories is at most "
            "one standard error below its best; where top-1 falls while the loss still falls, the heads "
            "overfit. "
        )
    else:
        words += "Without labelled val samples the last epoch is kept. "
    words += "The loss measures how badly a sample’s own texts are distinguished from those of its batch."
    if len(log) > _MOST_POINTS:
        words += f" Each point is the mean of {-(-len(log) // _MOST_POINTS)} steps."
    return words
