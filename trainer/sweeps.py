"""How much the number of centers and the scorer matter: the LLM centers, measured again in other ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.answers import Answers
from trainer.recognition import accuracies, naming_of


def sweep_rows(asked: Sequence[Answers], *, model: str, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Recognition rows of the LLM centers for each number of centers and for each scorer.

    By the run's scorer for the first k of a category's ranked centers, k in `answers.COUNTS` below the
    largest number that a category has; and by every scorer for all centers. `k` is that number. Rows have no
    `map`.
    """
    rows: list[dict[str, Any]] = []
    for answers in asked:
        for named in answers.by_sweep:
            naming = naming_of(
                named.categories_NT, answers.shown, split=answers.task.split, anchors=named.anchors
            )
            rows.append(
                {
                    "modality": answers.shown.modality,
                    "split": answers.task.split,
                    "anchors": named.anchors,
                    "k": named.k,
                    "scorer": named.scorer,
                    "model": model,
                    **accuracies(naming, answers.task, resamples=resamples, seed=seed),
                }
            )
    return rows
