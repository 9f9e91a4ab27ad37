"""What the descriptions gain over the bare name where they may not repeat it, in words and rows.

Read from `name_free` of metrics.json (trainer/evaluate/name_free.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.modality import MODALITIES
from pipeline.accuracies import SPLITS, percent, place, points, split_title


@dataclass(frozen=True, slots=True)
class Gain:
    """One row of `name_free`: shares as in metrics.json; modality None is the mean over media modalities."""

    model: str
    split: str
    modality: str | None
    class_name: float
    name_free: float
    gain: float
    low: float
    high: float
    p: float
    n: int
    texts: float  # per category on average, beside the name
    fewest: int  # texts of a category
    without: int  # categories without any

    @property
    def verdict(self) -> str:
        """Whether the interval excludes 0, in a word or two."""
        return "helps" if self.low > 0 else "hurts" if self.high < 0 else "may be chance"


def gains(metrics: Mapping[str, Any], model: str | None = None) -> list[Gain]:
    """The rows, of one model if given: by model, split and modality, the mean first."""
    found = [
        Gain(
            model=row["model"],
            split=row["split"],
            modality=row["modality"],
            class_name=row["class_name"],
            name_free=row["name_free"],
            gain=row["gain"],
            low=row["gain_low"],
            high=row["gain_high"],
            p=row["p"],
            n=row["n"],
            texts=row["texts_mean"],
            fewest=row["texts_least"],
            without=row["without_texts"],
        )
        for row in metrics.get("name_free", ())
        if model is None or row["model"] == model
    ]
    return sorted(
        found,
        key=lambda row: (
            row.model,
            place(SPLITS, row.split),
            (-1, "") if row.modality is None else place(MODALITIES, row.modality),
        ),
    )


def run_model(metrics: Mapping[str, Any]) -> str:
    """The model of the run's own recognition: `aligned` where it has heads."""
    models = {row.get("model", "") for row in metrics.get("recognition", ())}
    return "aligned" if "aligned" in models else "zero_shot"


def main_gain(metrics: Mapping[str, Any]) -> Gain | None:
    """The one row to lead with: of the run's model, on unseen categories if there are any, else on seen ones.

    The mean over the media modalities, or the only modality.
    """
    rows = gains(metrics, run_model(metrics))
    for split in ("unseen", "seen"):
        for row in rows:
            if row.split == split:
                return row
    return None


def gain_sentence(metrics: Mapping[str, Any]) -> str | None:
    """Whether the words helped, in one sentence; None where it was not measured."""
    row = main_gain(metrics)
    if row is None:
        return None
    where = "mean over modalities" if row.modality is None else row.modality
    outcome = {
        "helps": "the descriptions help",
        "hurts": "the descriptions do harm",
        "may be chance": "a difference that may be chance",
    }[row.verdict]
    left = f"{row.texts:.1f} texts per category"
    if row.without:
        left += f" (none in {row.without:,})"
    interval = f"{points(row.low)} to {points(row.high)}; {split_title(row.split)}, {where}"
    return (
        f"By description alone, each name said once and taken out of the {left}: "
        f"{percent(row.name_free)}% where the bare name gives {percent(row.class_name)}%, "
        f"{points(row.gain)} points ({interval}): {outcome}."
    )
