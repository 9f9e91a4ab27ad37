"""Repeated splits: draw train, val and test again by object, train and measure each, and average.

One split of a small data set decides little: which forty samples are test samples changes an accuracy by more
than methods differ. Shapes: N samples, M train samples, K neighbours, C categories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from data.threads import side_by_side
from trainer.align.heads import Heads
from trainer.evaluate.few_shot import refit, with_shots
from trainer.evaluate.gallery import most_frequent
from trainer.evaluate.probe import fit_probe, labelled
from trainer.evaluate.seeds import estimate_of
from trainer.evaluate.trainings.order import Ready, Training
from trainer.evaluate.trust.answers import (
    ALIGNED,
    MEAN,
    ZERO_SHOT,
    answer,
    centers_by_model,
    offsets,
    place_samples,
)
from trainer.evaluate.trust.options import choose
from trainer.evaluate.trust.stacking import Spaces
from trainer.inputs import KnowledgeBase, seen_categories
from trainer.records import Bools, Centers, Ints, SampleSet
from trainer.score.geometry import unit_rows
from trainer.score.topk import nearest
from trainer.settings import Evaluate

HEADS, PROBE, NEIGHBOURS, CHOSEN = "heads", "linear_probe", "neighbours", "chosen"
METHODS = (HEADS, PROBE, NEIGHBOURS, ZERO_SHOT, MEAN, CHOSEN)

_SPLITS, _SMALL = 5, 1000
_NEIGHBOURS = (1, 3, 5)
_MOST_SHOTS = 4  # of the few-shot fits in every split; more shots are measured on the run's own split

_Placing = Callable[[Heads], Mapping[str, SampleSet]]


@dataclass(frozen=True)
class SplitTop1:
    """The top-1 of one method on the test samples of one split."""

    top1: float
    n: int
    n_train: int


_Key = tuple[str, int | None, str]  # modality, shots (None: all train samples), method


def repeat_rows(
    base: KnowledgeBase,
    spaces: Spaces,
    frozen: Mapping[str, SampleSet],
    place: _Placing,
    centers: Centers,
    heads: Heads,
    settings: Evaluate,
    *,
    together: bool = False,
    ready: Ready | None = None,
) -> list[dict[str, Any]]:
    """Rows {modality, shots, method, split, top1, top1_low, top1_high, n_splits, n, n_train}, and leads.

    For each split of `redraw` (as many as `split_count`), centers are chosen again where labels guide them,
    heads are trained with the settings of `heads`, and other methods are fitted on the same train samples:
    `linear_probe` (logistic regression), `neighbours` (K nearest by cosine, of centred features; K of 1, 3, 5
    by val), `zero_shot`, `mean` and `chosen` (`options.choose` by that split's val). With shots, the same on
    that many samples per category, up to four. A method that some split does not allow has no row. `modality`
    None: the mean over the modalities without text, unless it is the only one. Intervals are Student's, with
    the correction for splits that share samples (Nadeau and Bengio, Machine Learning 2003). Rows of the other
    methods have lead, lead_low and lead_high: how far the heads are ahead, split by split. `ready`: splits
    that are measured already.
    """
    count, shots = split_count(base, settings), shots_of(settings)
    if count == 0:
        return []
    known = ready or {}
    total = count * len(shots)
    with tqdm(total=total, desc="repeat splits", unit="training", disable=None) as bar:

        def measure(number: int, few: int | None) -> dict[_Key, SplitTop1]:
            if (found := known.get(Training("repeat", number, few))) is None:
                found = measure_split(base, spaces, frozen, place, centers, heads, settings, number, few)
            bar.update()
            return dict(found)

        jobs = [(number, few) for number in range(count) for few in shots]
        cells = side_by_side([partial(measure, *job) for job in jobs], together=together)
    splits: list[dict[_Key, SplitTop1]] = [{} for _ in range(count)]
    for (number, _), found in zip(jobs, cells, strict=True):
        splits[number] |= found
    return _rows(splits, shots)


def split_count(base: KnowledgeBase, settings: Evaluate) -> int:
    """How many splits are drawn: `auto` is 5 where every modality has few test samples, else 0."""
    if settings.repeats != "auto":
        return settings.repeats
    trained = {row["category_id"] for row in base.samples if row["split"] == "train"} - {None}
    tested = Counter(
        row["modality"] for row in base.samples if row["split"] == "test" and row["category_id"] in trained
    )
    return _SPLITS if 0 < max(tested.values(), default=0) <= _SMALL else 0


def shots_of(settings: Evaluate) -> list[int | None]:
    """With how many samples per category each split is measured; None: with all."""
    return [None, *(n for n in settings.few_shot if n <= _MOST_SHOTS)]


def redraw(base: KnowledgeBase, *, seed: int) -> dict[str, str]:
    """A new split for each labelled sample of a trained category, by its id, other samples keep theirs.

    The splits of objects (of samples without one) are exchanged at random among those of the same category
    and modalities, so that each split keeps its size in every one of them.
    """
    seen_C = seen_categories(base)
    objects: dict[str, list[dict[str, Any]]] = {}
    for row in base.samples:
        category = base.index.get(row["category_id"])
        if category is not None and seen_C[category]:
            objects.setdefault(
                f"o/{row['object_id']}" if row["object_id"] else f"s/{row['sample_id']}", []
            ).append(row)
    strata: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, rows in sorted(objects.items()):
        stratum = rows[0]["category_id"], tuple(sorted({row["modality"] for row in rows}))
        strata.setdefault(stratum, []).append(name)
    rng = np.random.default_rng(seed)
    drawn: dict[str, str] = {}
    for _, names in sorted(strata.items()):
        for name, other in zip(names, rng.permutation(len(names)).tolist(), strict=True):
            split = objects[names[other]][0]["split"]
            drawn.update({row["sample_id"]: split for row in objects[name]})
    return drawn


def neighbours(train: SampleSet, val: SampleSet, shown: SampleSet) -> Ints | None:
    """The category of most of the K nearest train samples; None without train samples.

    By the cosine of features less the train samples' mean. Of equally many, the category of the nearest one.
    K is the one of 1, 3 and 5 with the best accuracy on val (the smallest of equals), 1 without val samples.
    """
    if len(train) == 0:
        return None
    mean_D = train.vectors_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
    gallery_MD = unit_rows(train.vectors_ND - mean_D)

    def categories(samples: SampleSet) -> Ints:
        rows_NK, _ = nearest(unit_rows(samples.vectors_ND - mean_D), gallery_MD, max(_NEIGHBOURS))
        return train.category_N[rows_NK]

    best, most = 1, -1.0
    known = val.take(np.isin(val.category_N, train.category_N))
    if len(known):
        of_val_NK = categories(known)
        for k in _NEIGHBOURS:
            right = float(np.mean(most_frequent(of_val_NK[:, :k]) == known.category_N))
            best, most = (k, right) if right > most else (best, most)
    return most_frequent(categories(shown)[:, :best])


def measure_split(
    base: KnowledgeBase,
    spaces: Spaces,
    frozen: Mapping[str, SampleSet],
    place: _Placing,
    centers: Centers,
    heads: Heads,
    settings: Evaluate,
    number: int,
    few: int | None,
) -> dict[_Key, SplitTop1]:
    """The accuracies of every method in one split, fitted on all its train samples or on a few."""
    seed = settings.seed + number
    drawn = redraw(base, seed=seed)
    samples = tuple({**row, "split": drawn.get(row["sample_id"], row["split"])} for row in base.samples)
    split = replace(base, samples=samples)
    if few is not None:
        split = with_shots(split, few, seed=seed)
    known, fitted = refit(split, centers, heads, quiet=True)
    kept = {row["sample_id"]: row["split"] for row in split.samples}
    seen_C = seen_categories(base)
    features = {modality: _resplit(samples, kept) for modality, samples in frozen.items()}
    found: dict[_Key, SplitTop1] = {}
    hits = _by_features(features, seen_C)
    if fitted is not None:
        placed = {ZERO_SHOT: spaces.get(ZERO_SHOT, {}), ALIGNED: place(fitted)}
        split_sets = {
            name: {modality: _resplit(each, kept) for modality, each in sets.items()}
            for name, sets in placed.items()
        }
        for modality, own in _by_texts(split_sets, fitted, known, seen_C, settings).items():
            hits.setdefault(modality, {}).update(own)
    for modality, by_method in hits.items():
        n_train = len(labelled(features[modality], "train")) if modality in features else 0
        for method, hit_N in by_method.items():
            if len(hit_N):
                found[modality, few, method] = SplitTop1(float(hit_N.mean()), len(hit_N), n_train)
    return found


def _resplit(samples: SampleSet, splits: Mapping[str, str]) -> SampleSet:
    """The samples that are left, with their new splits."""
    left = samples.take(np.array([name in splits for name in samples.sample_ids], dtype=np.bool_))
    return replace(left, splits_N=np.array([splits[name] for name in left.sample_ids], dtype=str))


def _is_test(samples: SampleSet, seen_C: Bools) -> Bools:
    is_test_N: Bools = (samples.splits_N == "test") & np.append(seen_C, False)[samples.category_N]
    return is_test_N


def _by_features(features: Mapping[str, SampleSet], seen_C: Bools) -> dict[str, dict[str, Bools]]:
    """The hits of logistic regression and of nearest neighbours, by modality."""
    hits: dict[str, dict[str, Bools]] = {}
    for modality, samples in features.items():
        shown = samples.take(_is_test(samples, seen_C))
        train, val = labelled(samples, "train"), labelled(samples, "val")
        probe = fit_probe(train, val)
        if len(shown) == 0 or probe is None:
            continue
        guesses = {PROBE: probe.predict(shown.vectors_ND, 1)[:, 0], NEIGHBOURS: neighbours(train, val, shown)}
        hits[modality] = {
            method: (named_N[:, None] == shown.labels()).any(axis=1)
            for method, named_N in guesses.items()
            if named_N is not None
        }
    return hits


def _by_texts(
    sets: Spaces, heads: Heads, centers: Centers, seen_C: Bools, settings: Evaluate
) -> dict[str, dict[str, Bools]]:
    """The hits of the heads, of zero-shot, of their mean and of what val chooses, by modality."""
    names = {ALIGNED: HEADS, ZERO_SHOT: ZERO_SHOT, MEAN: MEAN}
    question = [offsets(seen_C, seen_C)]
    texts = centers_by_model(centers, heads)
    hits: dict[str, dict[str, Bools]] = {}
    for modality, placed in place_samples(sets, heads).items():
        if modality not in heads.weights:
            continue
        own = placed.samples
        is_val_N = (own.splits_N == "val") & np.append(seen_C, False)[own.category_N]
        groups = (placed.take(is_val_N), placed.take(_is_test(own, seen_C)))
        of_val, of_test = (
            {
                model: answer(group, model, texts, question, scorer=settings.scorer)[0].hits(group.samples)
                for model in group.models
            }
            for group in groups
        )
        chosen, _ = choose(
            of_val, groups[0].samples.object_N, resamples=settings.bootstrap, seed=settings.seed
        )
        hits[modality] = {names[model]: hit_N for model, hit_N in of_test.items()}
        if len(of_test) > 1:
            hits[modality][CHOSEN] = of_test[chosen]
    return hits


def _rows(splits: list[dict[_Key, SplitTop1]], shots: list[int | None]) -> list[dict[str, Any]]:
    """The means over the splits, of what every split has."""
    keys = [key for key in splits[0] if all(key in split for split in splits)]
    modalities = sorted({modality for modality, _, _ in keys})
    media = [modality for modality in modalities if modality != "text"] or modalities
    rows: list[dict[str, Any]] = []
    for modality in [*modalities, *([None] if len(media) > 1 else [])]:
        of = media if modality is None else [modality]
        for few in shots:
            values: dict[str, list[float]] = {}
            for method in METHODS:
                if all((one, few, method) in keys for one in of):
                    values[method] = [fmean(split[one, few, method].top1 for one in of) for split in splits]
            for method, shares in values.items():
                first = [splits[0][one, few, method] for one in of]
                n, n_train = sum(cell.n for cell in first), sum(cell.n_train for cell in first)
                # With few shots, the splits share what they are drawn from: all train samples.
                whole = sum(
                    splits[0].get((one, None, method), cell).n_train
                    for one, cell in zip(of, first, strict=True)
                )
                overlap = n / whole if whole else 0.0
                mean = estimate_of(shares, overlap=overlap)
                row: dict[str, Any] = {
                    "modality": modality,
                    "shots": few,
                    "method": method,
                    "split": "seen",
                    "top1": mean.value,
                    "top1_low": _number(mean.low, least=0.0),
                    "top1_high": _number(mean.high, most=1.0),
                    "n_splits": len(splits),
                    "n": n,
                    "n_train": n_train,
                }
                if method != HEADS and HEADS in values:
                    ahead = [a - b for a, b in zip(values[HEADS], shares, strict=True)]
                    lead = estimate_of(ahead, overlap=overlap)
                    row |= {
                        "lead": lead.value,
                        "lead_low": _number(lead.low),
                        "lead_high": _number(lead.high),
                    }
                rows.append(row)
    return rows


def _number(value: float, least: float = -np.inf, most: float = np.inf) -> float | None:
    """A bound within its range; None for NaN, as the bounds of a single split are."""
    return None if np.isnan(value) else float(min(max(value, least), most))
