"""The answers of each model for the same samples: the zero-shot encoder, the heads, and the mean of both.

Shapes: N samples, D dimensions, C categories, B samples of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from trainer.align.heads import Heads
from trainer.records import Bools, Centers, Doubles, Floats, Ints, SampleSet
from trainer.score.scoring import category_scores
from trainer.score.ways import Scores
from trainer.settings import Scorer

Model = Literal["zero_shot", "aligned", "mean"]
ZERO_SHOT: Final = "zero_shot"
ALIGNED: Final = "aligned"
MEAN: Final = "mean"

_CELLS = 2**22  # scores in memory at a time: 32 MiB in float64


@dataclass(frozen=True)
class Placed:
    """Samples of one modality, and their vectors in the text space by the zero-shot encoder and the heads."""

    samples: SampleSet
    vectors: Mapping[str, Floats]  # "zero_shot", "aligned" or both -> float32[N, D]

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that answer for these samples; the mean only where there are both others."""
        if len(self.vectors) == 2:
            return (ZERO_SHOT, ALIGNED, MEAN)
        return (ALIGNED,) if ALIGNED in self.vectors else (ZERO_SHOT,)

    def take(self, rows: Ints | Bools) -> Placed:
        """Some samples only."""
        return Placed(self.samples.take(rows), {model: x_ND[rows] for model, x_ND in self.vectors.items()})


@dataclass(frozen=True)
class Answers:
    """The best category of each sample, and its score; category -1 where no candidate has a center."""

    category_N: Ints
    score_N: Doubles

    def hits(self, samples: SampleSet) -> Bools:
        """Whether each answer is one of its sample's categories."""
        labels_NL = samples.labels()
        right_N: Bools = ((self.category_N[:, None] == labels_NL) & (labels_NL >= 0)).any(axis=1)
        return right_N


def place_samples(spaces: Mapping[str, Mapping[str, SampleSet]], heads: Heads) -> dict[str, Placed]:
    """The samples of every modality with the vectors of each model that differ.

    `spaces` maps "zero_shot" and "aligned" to the samples in the text space, by modality. Where both have a
    modality, the samples are those that both have. A modality without a head of its own (text, which is in
    the text space from the start) has the same vectors in both, so it has one model.
    """
    placed: dict[str, Placed] = {}
    untrained, mapped = spaces.get(ZERO_SHOT, {}), spaces.get(ALIGNED, {})
    for modality in sorted({*untrained, *mapped}):
        one, other = untrained.get(modality), mapped.get(modality)
        if one is not None and other is not None and modality in heads.weights:
            one = one.take(np.isin(one.sample_ids, other.sample_ids))
            other = other.take(np.isin(other.sample_ids, one.sample_ids))
            vectors = {ZERO_SHOT: one.vectors_ND, ALIGNED: other.vectors_ND}
            placed[modality] = Placed(other, vectors)
        elif other is not None:
            placed[modality] = Placed(other, {ALIGNED: other.vectors_ND})
        elif one is not None:
            placed[modality] = Placed(one, {ZERO_SHOT: one.vectors_ND})
    return placed


def centers_by_model(centers: Centers, heads: Heads | None) -> dict[str, Centers]:
    """The centers by the model whose vectors are compared with them, in the space of that model."""
    return {ZERO_SHOT: centers, ALIGNED: centers if heads is None else heads.represent(centers)}


def model_scores(placed: Placed, model: Model, centers: Mapping[str, Centers], scorer: Scorer) -> Scores:
    """The score of every category for each sample by one model: float64[N, C]."""
    if model != MEAN:
        return category_scores(placed.vectors[model], centers[model], scorer)
    one, other = (category_scores(x_ND, centers[name], scorer) for name, x_ND in placed.vectors.items())
    return mean_scores(one, other)


def mean_scores(one_NC: Scores, other_NC: Scores) -> Scores:
    """The scores of the model `mean`: the others' mean, for both are similarities with the same texts."""
    mean_NC: Scores = (one_NC + other_NC) / 2
    return mean_NC


def offsets(candidates_C: Bools, trained_C: Bools, constant: float = 0.0) -> Doubles:
    """What is added to the scores of a question: -infinity keeps a category out, and calibrated stacking
    takes a constant off the trained ones (Chao et al., ECCV 2016, equation 6): float64[C].
    """
    return np.where(candidates_C, np.where(trained_C, -constant, 0.0), -np.inf)


def answer(
    placed: Placed,
    model: Model,
    centers: Mapping[str, Centers],
    questions: Sequence[Doubles],
    *,
    scorer: Scorer,
) -> list[Answers]:
    """The best category of each sample by score plus offset, for each question (`offsets`).

    Ties go to the lower category. A block of samples is scored at a time, once for all questions.
    """
    found: list[list[Answers]] = [[] for _ in questions]
    step = max(1, _CELLS // max(1, len(next(iter(centers.values())).categories)))
    for start in range(0, len(placed.samples), step):
        rows = np.arange(start, min(start + step, len(placed.samples)))
        scores_BC = model_scores(placed.take(rows), model, centers, scorer)
        for at, offset_C in enumerate(questions):
            found[at].append(_best(scores_BC + offset_C))
    return [
        Answers(
            np.concatenate([np.zeros(0, np.int64), *(part.category_N for part in parts)]),
            np.concatenate([np.zeros(0), *(part.score_N for part in parts)]),
        )
        for parts in found
    ]


def _best(scores_BC: Scores) -> Answers:
    best_B = scores_BC.argmax(axis=1)
    score_B = scores_BC[np.arange(len(best_B)), best_B].astype(np.float64)
    return Answers(np.where(np.isfinite(score_B), best_B, -1), score_B)
