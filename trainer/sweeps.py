"""How much the number of centers and the scorer matter: the LLM centers, measured again in other ways."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from trainer.recognition import CENTERS, Task, accuracies, name_samples
from trainer.records import Centers, SampleSet
from trainer.settings import Evaluate, Scorer

COUNTS = (1, 5, 10, 20, 50)


def sweep_rows(
    sets: dict[str, SampleSet], centers: Centers, tasks: list[Task], *, model: str, settings: Evaluate
) -> list[dict[str, Any]]:
    """Recognition rows of the LLM centers for each number of centers and for each scorer.

    By the settings' scorer for the first k of a category's ranked centers, k in `COUNTS` below the largest
    number that a category has; and by every scorer for all centers. `k` is that number. Rows have no `map`.
    """
    most = int(centers.counts().max(initial=0))
    ways: list[tuple[int, Scorer]] = [(k, settings.scorer) for k in COUNTS if k < most]
    ways += [(most, scorer) for scorer in get_args(Scorer)]
    rows: list[dict[str, Any]] = []
    for modality, encoded in sets.items():
        for task in tasks:
            shown, among = task.of(encoded), centers.of(task.candidates_C)
            if len(shown) == 0 or len(among.row_ids) == 0:
                continue
            for k, scorer in ways:
                few = among.first(np.full(len(among.categories), k))
                naming = name_samples(shown, few, scorer=scorer, split=task.split, anchors=CENTERS)
                counts = accuracies(naming, task, resamples=settings.bootstrap, seed=settings.seed)
                rows.append(
                    {
                        "modality": modality,
                        "split": task.split,
                        "anchors": CENTERS,
                        "k": k,
                        "scorer": scorer,
                        "model": model,
                        **counts,
                    }
                )
    return rows
