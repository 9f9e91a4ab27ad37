"""The balance of the baselines: of the untrained space, and of heads aligned with something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from data.threads import side_by_side
from trainer.evaluate.balance import balance_rows, baseline_names, train_baseline
from trainer.evaluate.retrieval import retrieval_rows
from trainer.evaluate.tasks import AnchorSet
from trainer.evaluate.trainings.given import Given
from trainer.evaluate.trainings.order import Ready, Training
from trainer.records import SampleSet


def with_baselines(
    own: Callable[[], list[dict[str, Any]]],
    given: Given,
    anchors: dict[str, AnchorSet],
    *,
    together: bool,
    ready: Ready,
) -> list[dict[str, Any]]:
    """The balance rows that `own` makes, then those of the zero-shot space and of each baseline.

    Without heads, or where they are off, there are no baselines; one that the knowledge base does not allow
    has no rows. `together`: side by side (`side_by_side`). `ready`: the rows of baselines that are made
    already.
    """
    wanted = baselines_of(given)
    jobs = [own]
    if wanted and "zero_shot" in given.spaces:
        jobs.append(partial(_rows, given, "zero_shot", given.spaces["zero_shot"]))
    for baseline in wanted:
        jobs.append(
            partial(ready.__getitem__, baseline)
            if baseline in ready
            else partial(baseline_rows, given, anchors, baseline)
        )
    return [row for some in side_by_side(jobs, together=together) for row in some]


def baselines_of(given: Given) -> list[Training]:
    """The baselines that an evaluation trains."""
    if given.heads is None or not given.settings.baselines:
        return []
    return [Training("baseline", method=name) for name in baseline_names(given.heads)]


def baseline_rows(given: Given, anchors: dict[str, AnchorSet], baseline: Training) -> list[dict[str, Any]]:
    """The balance rows of one baseline."""
    assert given.heads is not None
    trained = train_baseline(given.base, anchors, given.heads, baseline.method)
    return [] if trained is None else _rows(given, baseline.method, given.place(trained))


def _rows(given: Given, name: str, sets: Mapping[str, SampleSet]) -> list[dict[str, Any]]:
    test = {modality: samples.split("test") for modality, samples in sets.items()}
    retrieval, _ = retrieval_rows(test, resamples=1, seed=given.settings.seed)
    return balance_rows(test, retrieval, anchors=name)
