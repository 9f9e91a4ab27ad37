"""What to trust, of a trained run: constants, the choice by val, and the calibration of the mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.align.heads import Heads
from trainer.evaluate.calibration import score_calibration_rows
from trainer.evaluate.tasks import Task, tasks
from trainer.evaluate.trainings.order import Ready
from trainer.evaluate.trust.answers import (
    ALIGNED,
    MEAN,
    ZERO_SHOT,
    Placed,
    centers_by_model,
    model_scores,
    place_samples,
)
from trainer.evaluate.trust.options import trust_rows
from trainer.evaluate.trust.repeats import repeat_rows
from trainer.evaluate.trust.stacking import Spaces, find_constants, stacking_rows
from trainer.inputs import KnowledgeBase, seen_categories
from trainer.records import Bools, Centers, Doubles, SampleSet
from trainer.settings import Evaluate


@dataclass(frozen=True)
class TrustRows:
    """The rows of metrics.json about what to trust; empty without heads."""

    trust: list[dict[str, Any]] = field(default_factory=list)
    stacking: list[dict[str, Any]] = field(default_factory=list)
    repeats: list[dict[str, Any]] = field(default_factory=list)
    calibration: list[dict[str, Any]] = field(default_factory=list)  # of the mean of both models
    constants: Mapping[tuple[str, str], float] = field(default_factory=dict)
    seen_C: Bools | None = None

    def constant_of(self, modality: str, model: str) -> Doubles | None:
        """What is taken off the score of each category; None where nothing is: float64[C]."""
        found = self.constants.get((modality, model))
        return None if found is None or self.seen_C is None else np.where(self.seen_C, found, 0.0)


def judge(
    base: KnowledgeBase,
    spaces: Spaces,
    frozen: Mapping[str, SampleSet],
    place: Callable[[Heads], Mapping[str, SampleSet]],
    centers: Centers,
    heads: Heads,
    settings: Evaluate,
    *,
    together: bool = False,
    ready: Ready | None = None,
) -> TrustRows:
    """Find the constants, choose by val, measure both, and repeat the splits.

    `frozen` holds the features, and `place` maps them by other heads. `ready`: trainings that are made
    already.
    """
    if not len(centers.row_ids):
        return TrustRows()
    seen_C = seen_categories(base)
    to_do = tasks(seen_C, labels_used=True)
    placed = place_samples(spaces, heads)
    texts = centers_by_model(centers, heads)
    how: dict[str, Any] = {"together": together, "ready": ready}
    constants = find_constants(base, spaces, place, centers, heads, seen_C, settings, **how)
    judged = TrustRows(
        trust=trust_rows(placed, texts, to_do, seen_C, settings, reasons=_alone(placed, heads, spaces)),
        stacking=stacking_rows(placed, texts, seen_C, constants, settings),
        repeats=repeat_rows(base, spaces, frozen, place, centers, heads, settings, **how),
        constants={key: constant.value for key, constant in constants.items()},
        seen_C=seen_C,
    )
    for modality, here in placed.items():
        if MEAN in here.models:
            constant_C = judged.constant_of(modality, MEAN)
            judged.calibration.extend(_mean_calibration(here, texts, to_do, constant_C, settings))
    return judged


def _alone(placed: Mapping[str, Placed], heads: Heads, spaces: Spaces) -> dict[str, str]:
    """Why a modality has a single model, by modality."""
    reasons: dict[str, str] = {}
    for modality, here in placed.items():
        if len(here.models) > 1:
            continue
        if here.models == (ZERO_SHOT,):
            reasons[modality] = "no head was trained for it"
        elif modality not in heads.weights:
            reasons[modality] = "it is in the text space from the start"
        elif ZERO_SHOT not in spaces:
            reasons[modality] = "there is no zero-shot encoder"
        else:
            reasons[modality] = "the zero-shot encoder does not place it in the text space"
    return reasons


def _mean_calibration(
    placed: Placed,
    centers: Mapping[str, Centers],
    to_do: Sequence[Task],
    constant_C: Doubles | None,
    settings: Evaluate,
) -> list[dict[str, Any]]:
    """The calibration rows of the mean of both models, as those of each one."""
    own = placed.samples
    val = placed.take((own.splits_N == "val") & (own.category_N >= 0))
    if len(val.samples) == 0:
        return []
    tested = []
    for task in to_do:
        rows_N = (own.splits_N == "test") & np.append(task.shown_C, False)[own.category_N]
        shown = placed.take(rows_N)
        if len(shown.samples):
            tested.append((task, shown.samples, model_scores(shown, MEAN, centers, settings.scorer)))
    return score_calibration_rows(
        model_scores(val, MEAN, centers, settings.scorer),
        val.samples.category_N,
        centers[ALIGNED].counts() > 0,
        tested,
        labels={"modality": own.modality, "model": MEAN, "scorer": settings.scorer},
        constant_C=constant_C,
    )
