"""The report's first screen: what was asked, the answer in three sentences, and one small table.

All of it is read from `metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pipeline.accuracies import (
    AccuracyRow,
    Mean,
    anchor_title,
    media,
    not_measured,
    percent,
    recognition_rows,
    split_mean,
)
from pipeline.description_gain import gain_sentence
from pipeline.html.elements import Child, Html, counted, el, join, table
from pipeline.trust import Trusted, stacked, stacked_mean, trusted
from trainer.evaluate.tasks import CENTERS

_TRANSDUCTIVE = (
    "Transductive: unlabelled samples of every split, the test split too, were used to choose the centers. "
    "Do not compare these numbers with those of runs that did not use the test samples."
)
_ROWS = {"seen": "trained categories", "unseen": "untrained categories"}


@dataclass(frozen=True, slots=True)
class RunData:
    """The run's data, as far as the question needs it."""

    samples: int
    modalities: int
    categories: int
    untrained: int  # categories without a train sample; 0 where nothing was trained on

    def to_text(self) -> str:
        """The question, in two sentences."""
        kinds = counted(self.modalities, "modality", "modalities")
        among = counted(self.categories, "category", "categories")
        words = f"Asked: which of {among} does a sample show, if a category is known by texts about it?"
        words += f" {counted(self.samples, 'sample')} in {kinds}"
        return (
            f"{words}; {self.untrained} categories have no train sample." if self.untrained else f"{words}."
        )


def first_screen(metrics: Mapping[str, Any], asked: RunData, use: str = "auto") -> Html:
    """The question, the answer, what texts gain without the name, and the table; a warning comes first."""
    warning = el("p", el("strong", _TRANSDUCTIVE)) if metrics.get("transductive") else ""
    return join(
        [
            warning,
            el("p", asked.to_text(), class_="sub"),
            answer(metrics, use),
            el("p", gained, class_="sub") if (gained := gain_sentence(metrics)) else "",
            small_table(metrics),
        ]
    )


def answer(metrics: Mapping[str, Any], use: str = "auto") -> Html:
    """What the space can do; what training changed; whether the texts helped."""
    rows = [row for row in recognition_rows(metrics) if row.centers]
    if not rows:
        reasons = not_measured(metrics) or ["the run had no labelled sample to score"]
        return el("p", f"Nothing was recognised: {'; '.join(reasons)}.", class_="lead")
    sentences = [_can_do(metrics, rows, use), _changed(metrics, rows, use), _words_helped(rows)]
    return el("p", join(sentences, " "), class_="lead")


def _can_do(metrics: Mapping[str, Any], rows: Sequence[AccuracyRow], use: str) -> Html:
    seen, unseen = split_mean(rows, "seen"), split_mean(rows, "unseen")
    subject = "Without training, the" if _untrained(rows) else "The"
    parts: list[Child] = []
    if seen:
        parts += [_share(seen), f" of new samples of trained categories (chance {percent(seen.chance)}%)"]
    if seen and unseen:
        parts.append(" and ")
    if unseen:
        kind = " of the samples of categories without a train sample" if seen else f" of {unseen.n:,} samples"
        among = ", with only these to choose from" if seen else ""
        parts += [_share(unseen), f"{kind}{among} (chance {percent(unseen.chance)}%)"]
    together = stacked_mean(stacked(metrics, use))
    if together is not None:
        both = f"{percent(together.seen_stacked)}% and {percent(together.unseen_stacked)}%"
        parts.append(f"; with all categories to choose from, {both}")
    return join([f"{subject} right category is found for ", *parts, "."])


def _share(mean: Mean) -> Html:
    return el("strong", f"{percent(mean.top1[CENTERS])}%")


def _untrained(rows: Sequence[AccuracyRow]) -> bool:
    return all(row.model == "zero_shot" for row in rows)


def _changed(metrics: Mapping[str, Any], rows: Sequence[AccuracyRow], use: str) -> Html:
    if _untrained(rows):
        return join(["Nothing was trained: these are answers of a pretrained encoder."])
    both = _compared(trusted(metrics, use))
    split = next((name for name in ("seen", "unseen") if any(name in each.shares for each in both)), None)
    if split is None:
        return join(["Before training there is nothing to compare with: no encoder places these modalities."])
    shown = [each for each in both if split in each.shares]
    before, after = (
        fmean(each.shares[split][model].top1 for each in shown) for model in ("zero_shot", "aligned")
    )
    *names, last = [each.modality for each in shown]
    kinds = f"{', '.join(names)} and {last}" if names else last
    categories = "trained" if split == "seen" else "untrained"
    verb = "raised" if after > before else "lowered" if after < before else "did not change"
    others = [each.modality for each in trusted(metrics, use) if each not in both and each.modality != "text"]
    many = counted(len(others), "more modality", "more modalities")
    more = f", and made {many} recognisable at all" if others else ""
    toss = [each.modality for each in shown if each.why in ("toss-up", "no val")]
    unsure = f" (by val samples a toss-up for {', '.join(toss)})" if toss else ""
    return join(
        [
            f"Training {verb} the share of {kinds} samples that are recognised ({categories} categories,"
            f" the same samples) from {percent(before)}% to ",
            el("strong", f"{percent(after)}%"),
            f"{unsure}{more}.",
        ]
    )


def _compared(found: Sequence[Trusted]) -> list[Trusted]:
    """The modalities with an answer before and after training, without text where there are others."""
    both = [each for each in found if len(each.models) > 1]
    return [each for each in both if each.modality != "text"] or both


def _words_helped(rows: Sequence[AccuracyRow]) -> Html:
    split = "unseen" if any(row.split == "unseen" for row in rows) else "seen"
    mean = split_mean(rows, split)
    best = _best_control(mean)
    if mean is None or best is None:
        return join(["Whether the texts helped is not known: no control was measured."])
    ours, theirs = mean.top1[CENTERS], mean.top1[best]
    shown = media(row for row in rows if row.split == split)
    won = sum(best in row.clearly_below() for row in shown)
    lost = sum(best in row.clearly_above() for row in shown)
    title = f"the best control, {anchor_title(best, rows)},"
    # Of many intervals some exclude 0 by chance: a verdict needs at least half of the modalities.
    if 2 * won >= len(shown) and not lost and ours > theirs:
        verdict = "The LLM’s texts helped"
    elif 2 * lost >= len(shown) and not won and ours < theirs:
        verdict = "The LLM’s texts did harm"
    else:
        verdict = "The LLM’s texts did not clearly help"
    many = counted(len(shown), "modality", "modalities")
    sure = f"; for certain better in {won} and worse in {lost} of {many}" if won or lost else ""
    return join(
        [
            f"{verdict}: put in their place, {title} reaches {percent(theirs)}% where they reach ",
            el("strong", f"{percent(ours)}%"),
            f" ({_ROWS[split]}{sure}).",
        ]
    )


def _best_control(mean: Mean | None) -> str | None:
    controls = [name for name in (mean.top1 if mean else {}) if name != CENTERS]
    return max(controls, key=lambda name: mean.top1[name] if mean else 0.0) if controls else None


def small_table(metrics: Mapping[str, Any]) -> Child:
    """Before training, after it, and by the best control: means over modalities of top-1, by split."""
    rows = [row for row in recognition_rows(metrics) if row.centers]
    if not rows:
        return ""
    both = [] if _untrained(rows) else _compared(trusted(metrics))
    body: list[list[Child]] = []
    for split, title in _ROWS.items():
        mean = split_mean(rows, split)
        if mean is None:
            continue
        cells: list[Child] = [title]
        if both:
            shown = [each.shares[split] for each in both if split in each.shares]
            for model in ("zero_shot", "aligned"):
                found = [shares[model].top1 for shares in shown]
                cells.append(percent(fmean(found)) if found else "–")
        best = _best_control(mean)
        control: Child = "–"
        if best is not None:
            control = join([percent(mean.top1[best]), el("span", anchor_title(best, rows), class_="ci")])
        cells += [el("strong", percent(mean.top1[CENTERS])), control, percent(mean.chance)]
        body.append(cells)
    first = split_mean(rows, rows[0].split)
    count = len(first.modalities) if first else 1
    many = counted(count, "modality", "modalities")
    caption = (
        f"Samples recognised, in percent: mean of {many}" if count > 1 else "Samples recognised, in percent"
    )
    if any(row.modality == "text" for row in rows) and any(row.modality != "text" for row in rows):
        caption += " (without text)"
    if both:
        caption += f"; before and after training the same samples of {', '.join(e.modality for e in both)}"
    head = [
        "",
        *(["before", "after"] if both else []),
        f"after, all {count}" if both else "LLM texts",
        "best control",
        "chance",
    ]
    return table(f"l{'r' * (len(head) - 1)}", head, body, caption=f"{caption}.")
