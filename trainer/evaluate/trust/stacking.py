"""Calibrated stacking: a constant taken off the scores of trained categories among all categories.

Heads score the categories that they were trained on higher, so that untrained ones lose to them. Chao et al.
("An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in the Wild", ECCV
2016) take a constant off the scores of trained categories. Here it is found from trained categories alone:
some of them are held out in turn, heads are trained without them, and the constant is the one with the best
harmonic mean on val samples. No sample of an untrained category takes part.

Shapes: N samples, C categories, T trained categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from data.threads import side_by_side
from trainer.align.heads import Heads
from trainer.evaluate.few_shot import refit
from trainer.evaluate.intervals import harmonic_mean, interval_of, resampled, sum_by_object
from trainer.evaluate.trainings.order import Ready, Training
from trainer.evaluate.trust.answers import Model, Placed, answer, centers_by_model, offsets, place_samples
from trainer.inputs import KnowledgeBase
from trainer.records import Bools, Centers, Doubles, Ints, SampleSet
from trainer.settings import Evaluate

_LEAST_TRAINED = 2  # categories that a fold must keep to train on
_CONSTANTS = 1000  # tried, from 0 to the largest margin
_CELLS = 2**22

Spaces = Mapping[str, Mapping[str, SampleSet]]


@dataclass(frozen=True)
class Rivalry:
    """The best trained and the best other category of each sample, as far as the constant decides."""

    margin_N: Doubles  # the best trained category's score less the best other's
    trained_hit_N: Bools
    other_hit_N: Bools
    is_trained_N: Bools  # whether the sample's own category is a trained one

    @classmethod
    def joined(cls, parts: Sequence[Rivalry]) -> Rivalry:
        """The samples of several folds together."""
        return cls(
            np.concatenate([part.margin_N for part in parts]),
            np.concatenate([part.trained_hit_N for part in parts]),
            np.concatenate([part.other_hit_N for part in parts]),
            np.concatenate([part.is_trained_N for part in parts]),
        )


@dataclass(frozen=True)
class Constant:
    """The constant of one modality and model, and what it was found on."""

    value: float
    harmonic: float  # on the val samples of the folds, with the constant
    n_trained: int  # those samples: of categories that their fold trained, and of those it held out
    n_held_out: int
    folds: int


def find_constants(
    base: KnowledgeBase,
    spaces: Spaces,
    place: Callable[[Heads], Mapping[str, SampleSet]],
    centers: Centers,
    heads: Heads,
    seen_C: Bools,
    settings: Evaluate,
    *,
    together: bool = False,
    ready: Ready | None = None,
) -> dict[tuple[str, Model], Constant]:
    """The constants by modality and model; none where all categories are trained, or none is.

    `place` maps the features by other heads. Each of `settings.stacking_folds` folds costs one training; a
    fold holds out as large a share of the trained categories as is untrained of all, so that the constant is
    found in the situation where it is used. A fold sees no train sample of what it holds out, in localization
    neither. A modality has no constant where no val sample is of a held-out category, or none of the others.
    `ready`: folds that are measured already.
    """
    trained, held_out = folds_of(centers, seen_C, settings)
    if not held_out:
        return {}
    known = ready or {}
    with tqdm(total=len(held_out), desc="hold out categories", unit="training", disable=None) as bar:

        def measure(number: int, held: Ints) -> dict[tuple[str, Model], Rivalry]:
            if (found := known.get(Training("fold", number))) is None:
                found = measure_fold(base, spaces, place, centers, heads, trained, held, settings)
            bar.update()
            return dict(found)

        found = side_by_side([partial(measure, *each) for each in enumerate(held_out)], together=together)
    constants: dict[tuple[str, Model], Constant] = {}
    for key in sorted({key for each in found for key in each}):
        parts = [each[key] for each in found if key in each]
        whole = Rivalry.joined(parts)
        own = int(whole.is_trained_N.sum())
        if 0 < own < len(whole.is_trained_N):
            value, harmonic = best_constant(whole)
            constants[key] = Constant(value, harmonic, own, len(whole.is_trained_N) - own, len(parts))
    return constants


def folds_of(centers: Centers, seen_C: Bools, settings: Evaluate) -> tuple[Ints, list[Ints]]:
    """The trained categories, int64[T], and the sets of them that are held out in turn."""
    has_center_C = centers.counts() > 0
    trained = np.flatnonzero(seen_C & has_center_C)
    others = int((~seen_C & has_center_C).sum())
    share = others / max(1, others + len(trained))
    return trained, draw_folds(trained, share, settings.stacking_folds, seed=settings.seed) if others else []


def draw_folds(trained: Ints, share: float, most: int, *, seed: int) -> list[Ints]:
    """At most `most` disjoint sets of trained categories, each about `share` of them, at most half: [T] each.

    Together they are all of them where `most` allows. Empty where so few are trained that none may go.
    """
    size = min(max(1, int(len(trained) * share + 0.5)), len(trained) // 2, len(trained) - _LEAST_TRAINED)
    if size < 1 or most < 1:
        return []
    order = np.random.default_rng(seed).permutation(trained)
    count = -(-len(trained) // size)
    if count <= most:
        return [np.sort(part) for part in np.array_split(order, count)]
    return [np.sort(order[start : start + size]) for start in range(0, most * size, size)]


def best_constant(rivalry: Rivalry) -> tuple[float, float]:
    """The constant ≥ 0 with the best harmonic mean of both accuracies, smoothed, and that mean, not smoothed.

    A sample changes sides where the constant passes its margin, so an accuracy is a step function; of few
    samples its highest step is an accident. So every step is spread by a logistic curve, as wide as
    Silverman's rule for a kernel density of the margins (Density Estimation, 1986, equation 3.31). The best
    of a thousand constants up to the largest margin is taken, beyond which no trained category is ever the
    answer; 0 where it improves nothing on these samples.
    """
    (plain,) = smoothed_harmonic(rivalry, np.zeros(1), 0.0)
    top = float(rivalry.margin_N.max())
    if top <= 0:
        return 0.0, float(plain)
    constants_G = np.linspace(0.0, top, _CONSTANTS)
    best = int(np.argmax(smoothed_harmonic(rivalry, constants_G, bandwidth(rivalry))))
    (harmonic,) = smoothed_harmonic(rivalry, constants_G[best : best + 1], 0.0)
    return (float(constants_G[best]), float(harmonic)) if harmonic > plain else (0.0, float(plain))


def bandwidth(rivalry: Rivalry) -> float:
    """Silverman's 0.9 · min(deviation, interquartile range / 1.34) · n^(-1/5) of the margins.

    n is the number of samples of the smaller kind.
    """
    low, high = np.quantile(rivalry.margin_N, (0.25, 0.75))
    n = min(int(rivalry.is_trained_N.sum()), int((~rivalry.is_trained_N).sum()))
    return float(0.9 * min(rivalry.margin_N.std(), (high - low) / 1.34) * n**-0.2)


def smoothed_harmonic(rivalry: Rivalry, constants_G: Doubles, width: float) -> Doubles:
    """The harmonic mean of both accuracies for each constant, every step spread by `width`: float64[G].

    The curve is a logistic distribution whose standard deviation is `width`; with 0 it is the step itself.
    """
    gain_N = rivalry.other_hit_N.astype(np.float64) - rivalry.trained_hit_N
    step = max(1, _CELLS // len(gain_N))
    moved: list[Doubles] = []
    kinds_N2 = np.stack([rivalry.is_trained_N, ~rivalry.is_trained_N], axis=1)
    for start in range(0, len(constants_G), step):
        beyond_GN = constants_G[start : start + step, None] - rivalry.margin_N
        if width > 0:
            scaled_GN = np.clip(beyond_GN * (np.pi / (np.sqrt(3) * width)), -50.0, 50.0)
            weight_GN = 1 / (1 + np.exp(-scaled_GN))
        else:
            weight_GN = (beyond_GN > 0).astype(np.float64)
        moved.append(weight_GN @ (gain_N[:, None] * kinds_N2))
    moved_G2 = np.concatenate(moved)
    before_2 = rivalry.trained_hit_N.astype(np.float64) @ kinds_N2
    share_G2 = (before_2 + moved_G2) / kinds_N2.sum(axis=0)
    return np.array([harmonic_mean(own, held) for own, held in share_G2.tolist()])


def stacking_rows(
    placed: Mapping[str, Placed],
    centers: Mapping[str, Centers],
    seen_C: Bools,
    constants: Mapping[tuple[str, Model], Constant],
    settings: Evaluate,
) -> list[dict[str, Any]]:
    """Rows of the two accuracies among all categories, without and with the constant, on test samples.

    Keys: modality, model, scorer, constant, folds, n_fit_trained, n_fit_held_out, fit_harmonic, seen, unseen,
    harmonic (without the constant, the last with harmonic_low and harmonic_high), seen_stacked,
    unseen_stacked, harmonic_stacked (with it, the last with its interval), n_seen, n_unseen. Intervals: 95%
    bootstrap over objects. Without test samples of both kinds the measures are None: the constant remains.
    """
    everything_C = np.ones_like(seen_C)
    rows: list[dict[str, Any]] = []
    for (modality, model), constant in constants.items():
        here = placed.get(modality)
        if here is None or model not in here.models:
            continue
        test = here.take((here.samples.splits_N == "test") & (here.samples.category_N >= 0))
        is_seen_N = seen_C[test.samples.category_N]
        plain, stacked = answer(
            test,
            model,
            centers,
            [offsets(everything_C, seen_C, value) for value in (0.0, constant.value)],
            scorer=settings.scorer,
        )
        row: dict[str, Any] = {
            "modality": modality,
            "model": model,
            "scorer": settings.scorer,
            "constant": constant.value,
            "folds": constant.folds,
            "n_fit_trained": constant.n_trained,
            "n_fit_held_out": constant.n_held_out,
            "fit_harmonic": constant.harmonic,
        }
        for suffix, answers in (("", plain), ("_stacked", stacked)):
            row |= _both(answers.hits(test.samples), is_seen_N, test.samples.object_N, suffix, settings)
        rows.append({**row, "n_seen": int(is_seen_N.sum()), "n_unseen": int((~is_seen_N).sum())})
    return rows


def _both(
    hit_N: Bools, is_seen_N: Bools, object_N: Ints, suffix: str, settings: Evaluate
) -> dict[str, float | None]:
    """Both accuracies and their harmonic mean, by their keys; None without samples of both kinds."""
    names = [
        f"{name}{suffix}{end}"
        for name, end in (
            ("seen", ""),
            ("unseen", ""),
            ("harmonic", ""),
            ("harmonic", "_low"),
            ("harmonic", "_high"),
        )
    ]
    if is_seen_N.all() or not is_seen_N.any():
        return dict.fromkeys(names)
    counts_NK = np.stack([hit_N & is_seen_N, is_seen_N, hit_N & ~is_seen_N, ~is_seen_N], axis=1)
    sums_OK = sum_by_object(counts_NK.astype(np.float64), object_N)
    drawn_BK = resampled(sums_OK, resamples=settings.bootstrap, seed=settings.seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        a_B, b_B = drawn_BK[:, 0] / drawn_BK[:, 1], drawn_BK[:, 2] / drawn_BK[:, 3]
        of_draws_B = np.where(a_B + b_B == 0, 0.0, 2 * a_B * b_B / (a_B + b_B))
    seen, unseen = float(hit_N[is_seen_N].mean()), float(hit_N[~is_seen_N].mean())
    harmonic = harmonic_mean(seen, unseen)
    low, high = interval_of(of_draws_B) if np.isfinite(of_draws_B).any() else (harmonic, harmonic)
    return dict(zip(names, (seen, unseen, harmonic, low, high), strict=True))


def measure_fold(
    base: KnowledgeBase,
    spaces: Spaces,
    place: Callable[[Heads], Mapping[str, SampleSet]],
    centers: Centers,
    heads: Heads,
    trained: Ints,
    held: Ints,
    settings: Evaluate,
) -> dict[tuple[str, Model], Rivalry]:
    """What heads that never saw the `held` categories make of the val samples of all trained categories."""
    names = {base.categories[category] for category in held.tolist()}
    kept = (row for row in base.samples if row["split"] != "train" or row["category_id"] not in names)
    smaller = replace(base, samples=tuple(kept))
    known, fitted = refit(smaller, centers, heads, quiet=True)
    if fitted is None:
        return {}
    candidates_C = np.isin(np.arange(len(base.categories)), trained)
    trained_C = candidates_C & ~np.isin(np.arange(len(base.categories)), held)
    both = [offsets(trained_C, trained_C), offsets(candidates_C & ~trained_C, trained_C)]
    found: dict[tuple[str, Model], Rivalry] = {}
    texts = centers_by_model(known, fitted)
    for modality, placed in place_samples({**spaces, "aligned": place(fitted)}, fitted).items():
        own = placed.samples
        val = placed.take((own.splits_N == "val") & np.append(candidates_C, False)[own.category_N])
        if len(val.samples) == 0:
            continue
        for model in val.models:
            ours, theirs = answer(val, model, texts, both, scorer=settings.scorer)
            if (ours.category_N < 0).any() or (theirs.category_N < 0).any():
                continue  # no center is left on one side
            found[modality, model] = Rivalry(
                ours.score_N - theirs.score_N,
                ours.hits(val.samples),
                theirs.hits(val.samples),
                trained_C[val.samples.category_N],
            )
    return found
