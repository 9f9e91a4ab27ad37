"""Few-shot learning: the linear probe and the heads, fitted on a few labelled samples per category.

Shapes: N samples, C categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from data.errors import TrainingError
from data.threads import side_by_side
from trainer.align.heads import Heads
from trainer.align.train import fit, recipe_of
from trainer.evaluate.intervals import share_interval
from trainer.evaluate.probe import Probe, fit_probe, labelled
from trainer.evaluate.tasks import Task
from trainer.evaluate.trainings.order import Ready, Training
from trainer.inputs import KnowledgeBase, seen_categories
from trainer.localize.centers import read_centers
from trainer.localize.choose import choose_centers, without_progress
from trainer.records import Bools, Centers, Ints, SampleSet
from trainer.score.scoring import score
from trainer.settings import Evaluate, Localize

PROBE, HEADS = "probe", "heads"
METHODS = (PROBE, HEADS)

Probes = Mapping[str, Probe | None]  # by modality


@dataclass(frozen=True)
class _FewShot:
    """A few-shot knowledge base with its encoded samples."""

    shots: int  # labelled train samples per category and modality
    base: KnowledgeBase  # without the other train samples
    train: dict[str, SampleSet]
    val: dict[str, SampleSet]
    shown: dict[str, SampleSet]


def few_shot_rows(
    base: KnowledgeBase,
    frozen: dict[str, SampleSet],
    centers: Centers,
    heads: Heads | None,
    settings: Evaluate,
    *,
    together: bool = False,
    ready: Ready | None = None,
    probes: Probes | None = None,
) -> list[dict[str, Any]]:
    """Rows {shots, method, modality, split, top1, top1_low, top1_high, n, n_train}, on split `seen`.

    `frozen` holds the features. `with_shots` selects the train samples; both methods get the same. Method
    `probe`: the linear probe of `probe.fit_probe`. Method `heads`, only with `heads`: new heads, trained with
    the same settings on these samples. Where labelled samples guided the run's centers, others are chosen, by
    rule `visual` and guided by these samples alone. Both methods use all val samples for selection. What
    cannot be fitted with so few samples has no row. `together`: fits run side by side (`side_by_side`).
    `ready`: the rows of fits that are made already. `probes`: those of all train samples, where they are
    fitted already.
    """
    alike = shots_alike(base, frozen, settings)
    known = ready or {}
    jobs: dict[Training, Callable[[], list[dict[str, Any]]]] = {}
    for fit_ in few_shot_fits(alike, heads):
        if fit_ in known:
            jobs[fit_] = partial(known.__getitem__, fit_)
        else:
            jobs[fit_] = partial(few_shot_fit, base, frozen, centers, heads, settings, fit_, probes)
    found = dict(zip(jobs, side_by_side(jobs.values(), together=together), strict=True))
    return [
        {**row, "shots": shots}
        for shots in settings.few_shot
        for method in METHODS
        for row in found.get(Training("few_shot", shots=alike.get(shots), method=method), ())
    ]


def shots_alike(base: KnowledgeBase, frozen: Mapping[str, SampleSet], settings: Evaluate) -> dict[int, int]:
    """For each number of shots, the one whose fits it shares: where all samples are kept already, more
    shots give the same results. Empty where no seen category has a test sample.
    """
    seen_C = seen_categories(base)
    if not any(len(each) for each in _shown(frozen, seen_C).values()):
        return {}
    first: dict[frozenset[str], int] = {}
    found: dict[int, int] = {}
    for shots in settings.few_shot:
        few = with_shots(base, shots, seed=settings.seed)
        kept = frozenset(row["sample_id"] for row in few.samples if row["split"] == "train")
        found[shots] = first.setdefault(kept, shots)
    return found


def few_shot_fits(alike: Mapping[int, int], heads: Heads | None) -> list[Training]:
    """The fits of all shots that differ (`shots_alike`), the longest first."""
    distinct = sorted(set(alike.values()), reverse=True)
    methods = METHODS if heads is not None else (PROBE,)
    return [Training("few_shot", shots=shots, method=each) for each in methods[::-1] for shots in distinct]


def few_shot_fit(
    base: KnowledgeBase,
    frozen: Mapping[str, SampleSet],
    centers: Centers,
    heads: Heads | None,
    settings: Evaluate,
    fit_: Training,
    probes: Probes | None = None,
) -> list[dict[str, Any]]:
    """The rows of one fit (`few_shot_rows`)."""
    assert fit_.shots is not None
    seen_C = seen_categories(base)
    few = with_shots(base, fit_.shots, seed=settings.seed)
    kept = frozenset(row["sample_id"] for row in few.samples if row["split"] == "train")
    shown = {modality: samples for modality, samples in _shown(frozen, seen_C).items() if len(samples)}
    train = {modality: labelled(frozen[modality], "train") for modality in shown}
    few_shot = _FewShot(
        shots=fit_.shots,
        base=few,
        train={m: s.take(np.array([name in kept for name in s.sample_ids], bool)) for m, s in train.items()},
        val={modality: frozen[modality].split("val") for modality in shown},
        shown=shown,
    )
    if fit_.method == PROBE:
        complete = {m for m, few_train in few_shot.train.items() if len(few_train) == len(train[m])}
        fitted = {m: probe for m, probe in (probes or {}).items() if m in complete}
        predicted = _classify_by_probe(few_shot, fitted)
    else:
        assert heads is not None
        predicted = _classify_by_heads(few_shot, centers, seen_C, heads, settings)
    return [
        _row(few_shot, fit_.method, modality, predicted_N, settings)
        for modality, predicted_N in predicted.items()
    ]


def _shown(frozen: Mapping[str, SampleSet], seen_C: Bools) -> dict[str, SampleSet]:
    """The test samples of seen categories, by modality."""
    task = Task("seen", seen_C, seen_C)
    return {modality: task.of(encoded) for modality, encoded in frozen.items()}


def with_shots(base: KnowledgeBase, shots: int, *, seed: int) -> KnowledgeBase:
    """The same knowledge base with at most `shots` labelled train samples per category and modality.

    Other train samples are removed: neither localization nor training sees them. Objects are put in a random
    order once, so that the same ones are kept in every modality.
    """
    rng = np.random.default_rng(seed)
    things = sorted({str(row["object_id"] or row["sample_id"]) for row in base.samples})
    place = dict(zip(things, rng.permutation(len(things)).tolist(), strict=True))
    train = [row for row in base.samples if row["split"] == "train" and row["category_id"] is not None]
    train.sort(key=lambda row: (place[str(row["object_id"] or row["sample_id"])], row["sample_id"]))
    kept: dict[tuple[str, str], set[str]] = {}
    for row in train:
        chosen = kept.setdefault((row["modality"], row["category_id"]), set())
        if len(chosen) < shots:
            chosen.add(row["sample_id"])
    names = {name for chosen in kept.values() for name in chosen}
    return replace(
        base,
        samples=tuple(row for row in base.samples if row["split"] != "train" or row["sample_id"] in names),
    )


def centers_for(few: KnowledgeBase, centers: Centers) -> Centers:
    """The run's centers, if no label influenced them; else as many new ones, guided by these samples."""
    if not centers.labels_guided:
        return centers
    settings = Localize(k=int(centers.counts().max()), with_name=centers.with_name)
    with without_progress():
        table, _ = choose_centers(few, settings)
    return read_centers(few, table)


def refit(
    few: KnowledgeBase, centers: Centers, heads: Heads, *, quiet: bool = False
) -> tuple[Centers, Heads | None]:
    """The centers and new heads for these samples, with the settings of `heads`.

    None instead of heads where such samples lack what the settings need, such as descriptions. `quiet` as in
    `fit`.
    """
    known = centers_for(few, centers)
    try:
        return known, fit(few, known, recipe_of(heads), quiet=quiet).heads
    except TrainingError:
        return known, None


def _classify_by_probe(few_shot: _FewShot, fitted: Probes) -> dict[str, Ints]:
    """The predictions of probes; `fitted`: those of modalities that have all their train samples."""
    predicted: dict[str, Ints] = {}
    for modality, shown in few_shot.shown.items():
        if modality in fitted:
            probe = fitted[modality]
        else:
            probe = fit_probe(few_shot.train[modality], few_shot.val[modality])
        if probe is not None:
            predicted[modality] = probe.predict(shown.vectors_ND, 1)[:, 0]
    return predicted


def _classify_by_heads(
    few_shot: _FewShot, centers: Centers, seen_C: Bools, heads: Heads, settings: Evaluate
) -> dict[str, Ints]:
    """The predictions of new heads, trained on the few samples with the settings of `heads`."""
    known, fitted = refit(few_shot.base, centers, heads)
    if fitted is None:
        return {}
    among = fitted.represent(known).of(seen_C)
    return {
        modality: score(
            fitted.map(modality, shown.vectors_ND), among, scorer=settings.scorer, top=1
        ).categories_NT[:, 0]
        for modality, shown in few_shot.shown.items()
        if modality in fitted.weights and len(among.row_ids)
    }


def _row(
    few_shot: _FewShot, method: str, modality: str, predicted_N: Ints, settings: Evaluate
) -> dict[str, Any]:
    shown = few_shot.shown[modality]
    hit_N: Bools = (predicted_N[:, None] == shown.labels()).any(axis=1)
    low, high = share_interval(hit_N, resamples=settings.bootstrap, seed=settings.seed)
    return {
        "shots": few_shot.shots,
        "method": method,
        "modality": modality,
        "split": "seen",
        "top1": float(hit_N.mean()),
        "top1_low": low,
        "top1_high": high,
        "n": len(shown),
        "n_train": len(few_shot.train[modality]),
    }
