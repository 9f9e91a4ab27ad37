"""Predict the categories of samples: by every anchor set, scorer and number of centers, in every task.

The LLM centers are needed many times: for each number of them, by each scorer, in each task and, as the
control `permuted`, for other categories. All of that is computed from one product (`ways`), together with the
score of every category, which average precision and calibration need.

Shapes: N samples, C categories, F categories that have an LLM center, T best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from trainer.evaluate.tasks import CENTERS, AnchorSet, Task
from trainer.records import Centers, Ints, SampleSet
from trainer.score.geometry import require_finite
from trainer.score.scoring import SCORERS, TEMPERATURE, best_categories, category_scores
from trainer.score.ways import Measure, Scores, Way, rank_ways
from trainer.settings import Scorer

COUNTS = (1, 5, 10, 20, 50)  # of centers per category, in sweeps
TOP = 5


@dataclass(frozen=True)
class TopCategories:
    """The best categories of each sample, by one anchor set."""

    anchors: str
    k: int  # the largest number of texts per candidate
    scorer: Scorer
    categories_NT: Ints  # best first


@dataclass(frozen=True)
class TaskPredictions:
    """All predictions for the samples of one modality in one task."""

    task: Task
    shown: SampleSet
    by_anchors: tuple[TopCategories, ...]  # by all their texts and the run's scorer, in the order of the sets
    by_sweep: tuple[TopCategories, ...]  # by fewer LLM centers, and by every scorer
    scores_NC: Scores  # by all LLM centers and the run's scorer, as `scoring.category_scores`


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: arrays have no equality
class _Question:
    """One prediction to make."""

    task: Task
    anchors: str
    anchor_set: AnchorSet
    k: int
    scorer: Scorer
    first: int | None = None  # only the first N texts of each category


def predict_tasks(
    samples: SampleSet, anchors: dict[str, AnchorSet], tasks: Sequence[Task], *, scorer: Scorer, sweeps: bool
) -> list[TaskPredictions]:
    """The predictions for every task that has some of the samples, in the order of the tasks.

    `samples` hold vectors in the text space; the LLM centers must be among the `anchors`. An anchor set
    without a text for any candidate predicts nothing. Sweeps use the run's scorer on the first k of a
    category's centers, for each k in `COUNTS` below the largest number that a category has, and every scorer
    on all of them, in every task but seen_among_all. Raises ValueError for vectors that are not finite.
    """
    found: dict[str, TaskPredictions] = {}
    groups: dict[tuple[bool, bytes], list[Task]] = {}  # tasks that show the same samples
    for task in tasks:
        groups.setdefault((task.test_only, task.shown_C.tobytes()), []).append(task)
    for group in groups.values():
        shown = group[0].of(samples)
        if len(shown):
            found |= {each.task.split: each for each in _predict(shown, anchors, group, scorer, sweeps)}
    return [found[task.split] for task in tasks if task.split in found]


def _predict(
    shown: SampleSet, anchors: dict[str, AnchorSet], tasks: list[Task], scorer: Scorer, sweeps: bool
) -> list[TaskPredictions]:
    """The predictions for tasks that all have the samples `shown`."""
    centers = anchors[CENTERS].texts
    questions = {
        task.split: (
            _by_anchors(task, anchors, scorer),
            _by_sweep(task, anchors[CENTERS], scorer) if sweeps and task.split != "seen_among_all" else [],
        )
        for task in tasks
    }
    named, scores_NC = _from_one_product(
        shown, centers, [q for pair in questions.values() for some in pair for q in some], tasks, scorer
    )

    def predict(question: _Question) -> TopCategories:
        found = named.get(question)
        if found is None:
            texts = question.anchor_set.texts.of(question.task.candidates_C)
            if question.first is not None:
                texts = texts.first(np.full(len(texts.categories), question.first))
            found = best_categories(shown.vectors_ND, texts, scorer=question.scorer, top=TOP)
        return TopCategories(question.anchors, question.k, question.scorer, found)

    return [
        TaskPredictions(
            task=task,
            shown=shown,
            by_anchors=tuple(predict(question) for question in questions[task.split][0]),
            by_sweep=tuple(predict(question) for question in questions[task.split][1]),
            scores_NC=scores_NC,
        )
        for task in tasks
    ]


def _by_anchors(task: Task, anchors: dict[str, AnchorSet], scorer: Scorer) -> list[_Question]:
    most = {
        name: int(each.texts.counts()[task.candidates_C].max(initial=0)) for name, each in anchors.items()
    }
    return [_Question(task, name, anchors[name], k, scorer) for name, k in most.items() if k]


def _by_sweep(task: Task, anchor_set: AnchorSet, scorer: Scorer) -> list[_Question]:
    counts_C = anchor_set.texts.counts()
    if not counts_C[task.candidates_C].any():
        return []
    most = int(counts_C.max())
    fewer = [_Question(task, CENTERS, anchor_set, k, scorer, first=k) for k in COUNTS if k < most]
    return fewer + [_Question(task, CENTERS, anchor_set, most, each) for each in get_args(Scorer)]


def _from_one_product(
    shown: SampleSet, centers: Centers, questions: list[_Question], tasks: list[Task], scorer: Scorer
) -> tuple[dict[_Question, Ints], Scores]:
    """The predictions that products with the LLM centers alone give; and every category's score."""
    owners_F = np.unique(centers.category_N)
    owners: dict[str, Ints | None] = {}
    ways: dict[tuple[Measure, bytes], Way] = {}
    asking: dict[_Question, tuple[Measure, bytes]] = {}
    needed_F = np.logical_or.reduce([task.candidates_C for task in tasks])[owners_F]
    for question in questions:
        name = question.anchors
        if name not in owners:
            owner_C = question.anchor_set.owner_C
            owners[name] = owners_F if name == CENTERS else None if owner_C is None else owner_C[owners_F]
        owner_F, measure = owners[name], SCORERS[question.scorer]
        if owner_F is not None and isinstance(measure, Measure):
            takes_F = question.task.candidates_C[owner_F]
            way = Way(replace(measure, first=question.first), np.where(takes_F, owner_F, -1))
            asking[question] = way.measure, way.owner_F.tobytes()
            ways[asking[question]] = way
            needed_F |= takes_F
    shape = len(shown), len(centers.categories)
    if not needed_F.any():
        return {}, np.full(shape, -np.inf)
    some = centers.of(np.isin(np.arange(len(centers.categories)), owners_F[needed_F]))
    require_finite(shown.vectors_ND, "queries")
    require_finite(some.vectors_ND, "centers")
    run_scorer = SCORERS[scorer]
    whole = run_scorer if isinstance(run_scorer, Measure) else None
    rankings, scores_NF = rank_ways(
        shown.vectors_ND,
        some.vectors_ND,
        np.flatnonzero(np.diff(some.category_N, prepend=-1)),
        [Way(way.measure, way.owner_F[needed_F]) for way in ways.values()],
        top=TOP,
        temperature=TEMPERATURE,
        whole=whole,
        order_only=True,
    )
    ranked = dict(zip(ways, rankings, strict=True))
    named = {question: ranked[way].categories_NT for question, way in asking.items()}
    if whole is None:
        return named, category_scores(shown.vectors_ND, some, scorer)
    if scores_NF.shape == shape:
        return named, scores_NF
    scores_NC = np.full(shape, -np.inf, scores_NF.dtype)
    scores_NC[:, owners_F[needed_F]] = scores_NF
    return named, scores_NC
