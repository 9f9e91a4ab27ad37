"""Choose by val between the zero-shot encoder, the heads and the mean of both, and show all on test samples.

Shapes: N samples, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.evaluate.intervals import lead, share_interval
from trainer.evaluate.tasks import Task
from trainer.evaluate.trust.answers import ALIGNED, MEAN, ZERO_SHOT, Model, Placed, answer, offsets
from trainer.records import Bools, Centers, Ints
from trainer.settings import Evaluate


def choose(hits: Mapping[Model, Bools], object_N: Ints, *, resamples: int, seed: int) -> tuple[Model, bool]:
    """The model to use by its hits on val samples, and whether it is a toss-up between training and none.

    A toss-up: the 95% paired interval of the difference between heads and zero-shot covers 0, or there is no
    sample; then the mean of both is used. Else it is the better of the two, or the mean if that is better
    still. A single model is used as it is.
    """
    if len(hits) == 1:
        return next(iter(hits)), False
    n = len(object_N)
    if n == 0:
        return MEAN, True
    apart = lead(hits[ALIGNED], hits[ZERO_SHOT], object_N, resamples=resamples, seed=seed)
    if apart.low <= 0 <= apart.high:
        return MEAN, True
    better: Model = ALIGNED if apart.value > 0 else ZERO_SHOT
    return (MEAN if hits[MEAN].sum() > hits[better].sum() else better), False


def trust_rows(
    placed: Mapping[str, Placed],
    centers: Mapping[str, Centers],
    to_do: Sequence[Task],
    seen_C: Bools,
    settings: Evaluate,
    *,
    reasons: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Rows {modality, split, model, chosen, toss_up, reason, top1, top1_low, top1_high, n}, and leads.

    `centers`: by model. `split` is `val` (samples of trained categories, among these: what the choice was
    made on) or a task's, on test samples. Rows of the models that were not chosen also have lead, lead_low,
    lead_high and p: how far the chosen one is ahead of them on the same samples. A modality with one model
    has the rows of that one, and the `reason`.
    """
    resampling = {"resamples": settings.bootstrap, "seed": settings.seed}
    tasks = [Task("seen", seen_C, seen_C), *to_do]  # the first one is asked of the val samples
    rows: list[dict[str, Any]] = []
    for modality, here in placed.items():
        own = here.samples
        is_val_N = (own.splits_N == "val") & np.append(seen_C, False)[own.category_N]
        shown = here.take((own.splits_N == "test") & (own.category_N >= 0) | is_val_N)
        questions = [offsets(task.candidates_C, seen_C) for task in tasks]
        answers = {
            model: answer(shown, model, centers, questions, scorer=settings.scorer) for model in here.models
        }
        is_val_N = shown.samples.splits_N == "val"
        hits: dict[str, dict[Model, Bools]] = {}
        groups = [("val", 0, is_val_N)]
        for at, task in enumerate(to_do, start=1):
            groups.append((task.split, at, ~is_val_N & task.shown_C[shown.samples.category_N]))
        for split, at, rows_N in groups:
            hits[split] = {model: found[at].hits(shown.samples)[rows_N] for model, found in answers.items()}
        chosen, toss_up = choose(hits["val"], shown.samples.object_N[is_val_N], **resampling)
        for split, _, rows_N in groups:
            if not rows_N.any():
                continue
            object_N = shown.samples.object_N[rows_N]
            for model, hit_N in hits[split].items():
                low, high = share_interval(hit_N, **resampling)
                row = {
                    "modality": modality,
                    "split": split,
                    "model": model,
                    "chosen": model == chosen,
                    "toss_up": toss_up,
                    "reason": reasons.get(modality),
                    "top1": float(hit_N.mean()),
                    "top1_low": low,
                    "top1_high": high,
                    "n": len(hit_N),
                }
                if model != chosen:
                    row |= lead(hits[split][chosen], hit_N, object_N, **resampling).as_row()
                rows.append(row)
    return rows
