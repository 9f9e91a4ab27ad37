"""The result table of a run: LLM centers beside every control, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.show import aligned
from pipeline.accuracies import (
    AccuracyRow,
    anchor_names,
    anchor_title,
    centers_title,
    model_title,
    not_measured,
    percent,
    recognition_rows,
    split_mean,
    split_title,
    verdict,
)
from pipeline.description_gain import gain_sentence
from trainer.evaluate.tasks import CENTERS

_NO_ROWS = "No recognition was measured."


def result_table(metrics: Mapping[str, Any], key: str = "recognition") -> str:
    """The table for the terminal: one block per split, one line per modality, and the verdict below.

    Numbers are top-1 in percent. `*` marks the best of a row, `!` a control at or above the LLM centers.
    """
    rows = recognition_rows(metrics, key)
    reasons = not_measured(metrics) if key == "recognition" else []
    missing = ["Not measured:", *(f"  {reason}" for reason in reasons)] if reasons else []
    if not rows:
        return "\n".join([_NO_ROWS, *missing])
    names = anchor_names(rows)
    header = ["", *(anchor_title(name, rows) for name in names), "chance", "n"]
    lines: list[list[str]] = []
    for split in dict.fromkeys(row.split for row in rows):
        block = [row for row in rows if row.split == split]
        lines.append([split_title(split)])
        lines += [
            [f"  {row.modality}", *_plain_cells(row, names), percent(row.chance), f"{row.n:,}"]
            for row in block
        ]
        mean = split_mean(block, split)
        if mean is not None and len(mean.modalities) > 1:
            label = f"  mean of {len(mean.modalities)}"
            means = [f"{percent(mean.top1[name])}  " if name in mean.top1 else "-  " for name in names]
            lines.append([label, *means, percent(mean.chance), f"{mean.n:,}"])
    legend = f"top-1 %, [95% interval], * best of the row, ! a control at or above the {centers_title(rows)}"
    if any(row.modality == "text" for row in rows) and any(row.modality != "text" for row in rows):
        legend += "; means leave text out"
    return "\n".join(
        [
            f"{model_title(rows)}: {legend}",
            "",
            *aligned([header, *lines]),
            "",
            *verdict(rows),
            *_by_description(metrics, key),
            *(["", *missing] if missing else []),
        ]
    )


def _by_description(metrics: Mapping[str, Any], key: str) -> list[str]:
    """The sentence on what the descriptions gain without the name, below the run's own table."""
    sentence = gain_sentence(metrics) if key == "recognition" else None
    return [sentence] if sentence else []


def _plain_cells(row: AccuracyRow, names: Sequence[str]) -> list[str]:
    cells, best, warned = row.cells(), row.best(), row.not_beaten()
    texts = []
    for name in names:
        if name not in cells:
            texts.append("-  ")
            continue
        cell = cells[name]
        interval = f" [{percent(cell.low)}-{percent(cell.high)}]" if name == CENTERS else ""
        marks = ("*" if name in best else "") + ("!" if name in warned else "")
        texts.append(f"{percent(cell.top1)}{interval}{marks:<2}")
    return texts


def result_table_markdown(metrics: Mapping[str, Any], key: str = "recognition") -> str:
    """The same table as GitHub Markdown: bold is the best of a row, ▲ a control at or above the centers."""
    rows = recognition_rows(metrics, key)
    reasons = not_measured(metrics) if key == "recognition" else []
    if not rows:
        return "\n".join([_NO_ROWS, "", *(f"- {reason}" for reason in reasons)]).rstrip()
    names = anchor_names(rows)
    header = ["split", "modality", *(anchor_title(name, rows) for name in names), "chance", "n"]
    lines = [header, ["---", "---", *["---:"] * (len(names) + 2)]]
    for split in dict.fromkeys(row.split for row in rows):
        block = [row for row in rows if row.split == split]
        title = split.replace("_", " ")
        lines += [
            [title, row.modality, *_markdown_cells(row, names), percent(row.chance), f"{row.n:,}"]
            for row in block
        ]
        mean = split_mean(block, split)
        if mean is not None and len(mean.modalities) > 1:
            means = [f"*{percent(mean.top1[name])}*" if name in mean.top1 else "–" for name in names]
            label = f"*mean of {len(mean.modalities)}*"
            lines.append([title, label, *means, f"*{percent(mean.chance)}*", f"{mean.n:,}"])
    table = ["| " + " | ".join(line) + " |" for line in lines]
    legend = (
        f"Top-1 % ({model_title(rows)}), 95% bootstrap interval in brackets; **bold** is the best of a row, "
        f"▲ a control at or above the {centers_title(rows)}."
    )
    return "\n".join(
        [
            *table,
            "",
            legend,
            "",
            *(
                f"- {sentence}"
                for sentence in [
                    *verdict(rows),
                    *_by_description(metrics, key),
                    *(f"Not measured: {reason}" for reason in reasons),
                ]
            ),
        ]
    )


def _markdown_cells(row: AccuracyRow, names: Sequence[str]) -> list[str]:
    cells, best, warned = row.cells(), row.best(), row.not_beaten()
    texts = []
    for name in names:
        if name not in cells:
            texts.append("–")
            continue
        cell = cells[name]
        number = f"**{percent(cell.top1)}**" if name in best else percent(cell.top1)
        interval = f" [{percent(cell.low)}–{percent(cell.high)}]" if name == CENTERS else ""
        texts.append(f"{number}{interval}{' ▲' if name in warned else ''}")
    return texts
