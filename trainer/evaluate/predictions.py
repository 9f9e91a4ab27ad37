"""What samples are named, by every set of texts and in every other way that is measured.

The LLM centers are asked again and again: by each number of them, by each scorer, in each task, and, as the
control `permuted`, for other categories. All that comes of one product (`ways`), and with it every category's
score, which average precision and calibration need.

Shapes: N samples, C categories, F categories that have an LLM center, T best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from trainer.evaluate.tasks import CENTERS, Task
from trainer.records import Centers, Ints, SampleSet
from trainer.score.geometry import require_finite
from trainer.score.scoring import TEMPERATURE, best_categories, category_scores
from trainer.score.ways import Measure, Scores, Way, rank_ways
from trainer.settings import Scorer

COUNTS = (1, 5, 10, 20, 50)  # of centers per category, that sweeps ask for
TOP = 5
_SOFT = {"nearest": False, "logsumexp": True}  # what one product can tell; the others make texts of their own


@dataclass(frozen=True)
class TopCategories:
    """The best categories of each sample, by some texts."""

    anchors: str
    k: int  # the largest number of texts per candidate
    scorer: Scorer
    categories_NT: Ints  # best first


@dataclass(frozen=True)
class TaskPredictions:
    """All that is asked about the samples of one modality in one task."""

    task: Task
    shown: SampleSet
    by_anchors: tuple[TopCategories, ...]  # by all their texts and the run's scorer, in the order of the sets
    by_sweep: tuple[TopCategories, ...]  # by fewer of the LLM centers, and by every scorer
    scores_NC: Scores  # by all LLM centers and the run's scorer, as `scoring.category_scores`


@dataclass(frozen=True, eq=False)  # known by what it is, not by what is in it
class _Question:
    task: Task
    anchors: str
    texts: Centers
    k: int
    scorer: Scorer
    first: int | None = None  # of each category's texts only so many


def predict_tasks(
    samples: SampleSet, anchors: dict[str, Centers], tasks: Sequence[Task], *, scorer: Scorer, sweeps: bool
) -> list[TaskPredictions]:
    """The answers to every task that shows some of the samples; none where no anchor set has a text for it.

    `samples` hold vectors in the text space; `anchors` have LLM centers among them. Sweeps ask by the run's
    scorer for the first k of a category's centers, k in `COUNTS` below the largest number that a category
    has, and by every scorer for all. Raises ValueError for vectors that are not finite.
    """
    answers: dict[str, TaskPredictions] = {}
    groups: dict[tuple[bool, bytes], list[Task]] = {}  # tasks that show the same samples
    for task in tasks:
        groups.setdefault((task.test_only, task.shown_C.tobytes()), []).append(task)
    for group in groups.values():
        shown = group[0].of(samples)
        if len(shown):
            answers |= {each.task.split: each for each in _predict(shown, anchors, group, scorer, sweeps)}
    return [answers[task.split] for task in tasks if task.split in answers]


def _predict(
    shown: SampleSet, anchors: dict[str, Centers], tasks: list[Task], scorer: Scorer, sweeps: bool
) -> list[TaskPredictions]:
    """The answers to tasks that all show these samples."""
    centers = anchors[CENTERS]
    questions = {
        task.split: (_by_anchors(task, anchors, scorer), _by_sweep(task, centers, scorer) if sweeps else [])
        for task in tasks
    }
    named, scores_NC = _from_one_product(
        shown, centers, [q for pair in questions.values() for some in pair for q in some], tasks, scorer
    )

    def answer(question: _Question) -> TopCategories:
        found = named.get(question)
        if found is None:
            texts = question.texts.of(question.task.candidates_C)
            if question.first is not None:
                texts = texts.first(np.full(len(texts.categories), question.first))
            found = best_categories(shown.vectors_ND, texts, scorer=question.scorer, top=TOP)
        return TopCategories(question.anchors, question.k, question.scorer, found)

    return [
        TaskPredictions(
            task=task,
            shown=shown,
            by_anchors=tuple(answer(question) for question in questions[task.split][0]),
            by_sweep=tuple(answer(question) for question in questions[task.split][1]),
            scores_NC=scores_NC,
        )
        for task in tasks
    ]


def _by_anchors(task: Task, anchors: dict[str, Centers], scorer: Scorer) -> list[_Question]:
    most = {name: int(texts.counts()[task.candidates_C].max(initial=0)) for name, texts in anchors.items()}
    return [_Question(task, name, anchors[name], k, scorer) for name, k in most.items() if k]


def _by_sweep(task: Task, centers: Centers, scorer: Scorer) -> list[_Question]:
    counts_C = centers.counts()
    if not counts_C[task.candidates_C].any():
        return []
    most = int(counts_C.max())
    fewer = [_Question(task, CENTERS, centers, k, scorer, first=k) for k in COUNTS if k < most]
    return fewer + [_Question(task, CENTERS, centers, most, each) for each in get_args(Scorer)]


def _from_one_product(
    shown: SampleSet, centers: Centers, questions: list[_Question], tasks: list[Task], scorer: Scorer
) -> tuple[dict[_Question, Ints], Scores]:
    """The questions that the products with the LLM centers alone can answer; and every category's score."""
    owners_F = np.unique(centers.category_N)
    owners: dict[str, Ints | None] = {}
    ways: dict[tuple[Measure, bytes], Way] = {}
    asking: dict[_Question, tuple[Measure, bytes]] = {}
    needed_F = np.logical_or.reduce([task.candidates_C for task in tasks])[owners_F]
    for question in questions:
        name = question.anchors
        if name not in owners:
            owners[name] = owners_F if name == CENTERS else _takers(centers, owners_F, question.texts)
        owner_F = owners[name]
        if owner_F is not None and question.scorer in _SOFT:
            takes_F = (owner_F >= 0) & question.task.candidates_C[owner_F]
            way = Way(Measure(_SOFT[question.scorer], question.first), np.where(takes_F, owner_F, -1))
            asking[question] = way.measure, way.owner_F.tobytes()
            ways[asking[question]] = way
            needed_F |= takes_F
    scores_NC: Scores = np.full((len(shown), len(centers.categories)), -np.inf)
    if not needed_F.any():
        return {}, scores_NC
    some = centers.of(np.isin(np.arange(len(centers.categories)), owners_F[needed_F]))
    require_finite(shown.vectors_ND, "queries")
    require_finite(some.vectors_ND, "centers")
    rankings, scores_NF = rank_ways(
        shown.vectors_ND,
        some.vectors_ND,
        np.flatnonzero(np.diff(some.category_N, prepend=-1)),
        [Way(way.measure, way.owner_F[needed_F]) for way in ways.values()],
        top=TOP,
        temperature=TEMPERATURE,
        whole=Measure(_SOFT[scorer]) if scorer in _SOFT else None,
    )
    ranked = dict(zip(ways, rankings, strict=True))
    named = {question: ranked[way].categories_NT for question, way in asking.items()}
    if scorer not in _SOFT:
        return named, category_scores(shown.vectors_ND, some, scorer)
    if scores_NF.shape == scores_NC.shape:
        return named, scores_NF
    scores_NC = np.asarray(scores_NC, dtype=scores_NF.dtype)
    scores_NC[:, owners_F[needed_F]] = scores_NF
    return named, scores_NC


def _takers(centers: Centers, owners_F: Ints, texts: Centers) -> Ints | None:
    """The categories for which `texts` has the centers of each category: -1 where none has; else None.

    None where they are no permutation of centers, but texts of their own.
    """
    if len(texts.row_ids) != len(centers.row_ids):
        return None
    giver_of = dict(zip(centers.row_ids, centers.category_N.tolist(), strict=True))
    takers_C = np.full(len(centers.categories), -1)
    for taker in np.unique(texts.category_N).tolist():
        start, stop = np.searchsorted(texts.category_N, (taker, taker + 1)).tolist()
        giver = giver_of.get(texts.row_ids[start], -1)
        own = slice(*np.searchsorted(centers.category_N, (giver, giver + 1)).tolist())
        same = centers.row_ids[own] == texts.row_ids[start:stop]
        if giver < 0 or not same or not np.array_equal(centers.vectors_ND[own], texts.vectors_ND[start:stop]):
            return None
        takers_C[giver] = taker
    return takers_C[owners_F]
