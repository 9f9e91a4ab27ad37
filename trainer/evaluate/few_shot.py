"""How few labelled samples are enough: the linear probe, and the heads, on a handful per category.

Shapes: N samples, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.errors import TrainingError
from trainer.align.heads import Heads
from trainer.align.train import fit, recipe_of
from trainer.evaluate.intervals import share_interval
from trainer.evaluate.probe import fit_probe, labelled
from trainer.evaluate.tasks import Task
from trainer.inputs import KnowledgeBase, seen_categories
from trainer.localize.centers import read_centers
from trainer.localize.choose import choose_centers
from trainer.records import Bools, Centers, Ints, SampleSet
from trainer.score.scoring import score
from trainer.settings import Evaluate, Localize


@dataclass(frozen=True)
class _FewShot:
    """So many labelled train samples per category and modality, and what there is to name."""

    shots: int
    base: KnowledgeBase  # its only train samples are these
    train: dict[str, SampleSet]
    val: dict[str, SampleSet]
    shown: dict[str, SampleSet]


def few_shot_rows(
    base: KnowledgeBase,
    frozen: dict[str, SampleSet],
    centers: Centers,
    heads: Heads | None,
    settings: Evaluate,
) -> list[dict[str, Any]]:
    """Rows {shots, method, modality, split, top1, top1_low, top1_high, n, n_train}, on split `seen`.

    `frozen` holds the features. Which train samples are kept is told in `shots.with_shots`; both methods get
    the same. method `probe`: the linear probe of `probe.fit_probe`. `heads`, where there are `heads`: new
    ones, trained as these were but for the samples. Where labelled samples guided the run's centers, others
    are chosen, by rule `visual` and guided by these samples alone. Both methods choose by all val samples.
    What cannot be fitted with so few has no row.
    """
    seen_C = seen_categories(base)
    task = Task("seen", seen_C, seen_C)
    shown = {modality: task.of(encoded) for modality, encoded in frozen.items()}
    shown = {modality: samples for modality, samples in shown.items() if len(samples)}
    rows: list[dict[str, Any]] = []
    train = {modality: labelled(frozen[modality], "train") for modality in shown}
    val = {modality: frozen[modality].split("val") for modality in shown}
    before: set[str] = set()
    named: dict[str, dict[str, Ints]] = {}
    for shots in settings.few_shot if shown else ():
        few = with_shots(base, shots, seed=settings.seed)
        kept = {row["sample_id"] for row in few.samples if row["split"] == "train"}
        handful = _FewShot(
            shots=shots,
            base=few,
            train={
                m: s.take(np.array([name in kept for name in s.sample_ids], bool)) for m, s in train.items()
            },
            val=val,
            shown=shown,
        )
        if kept != before:  # else there are no more samples to be had, and the same comes of them
            named = {"probe": _classify_by_probe(handful)}
            if heads is not None:
                known = _centers_for(few, centers)
                named["heads"] = _classify_by_heads(handful, known.of(seen_C), known, heads, settings)
        before = kept
        rows += [
            _row(handful, method, modality, named_N, settings)
            for method, by_modality in named.items()
            for modality, named_N in by_modality.items()
        ]
    return rows


def _centers_for(few: KnowledgeBase, centers: Centers) -> Centers:
    """The run's centers, if no label had a say in them; else as many, guided by what few samples show."""
    if not centers.labels_guided:
        return centers
    table, _ = choose_centers(few, Localize(k=int(centers.counts().max())))
    return read_centers(few, table)


def _classify_by_probe(handful: _FewShot) -> dict[str, Ints]:
    named: dict[str, Ints] = {}
    for modality, shown in handful.shown.items():
        probe = fit_probe(handful.train[modality], handful.val[modality])
        if probe is not None:
            named[modality] = probe.named(shown.vectors_ND, 1)[:, 0]
    return named


def _classify_by_heads(
    handful: _FewShot, among: Centers, centers: Centers, heads: Heads, settings: Evaluate
) -> dict[str, Ints]:
    """What new heads, trained on the handful by the recipe of `heads`, name the samples."""
    try:
        fitted = fit(handful.base, centers, recipe_of(heads)).heads
    except TrainingError:  # so few samples may not have what the recipe asks for, say descriptions
        return {}
    return {
        modality: score(
            fitted.map(modality, shown.vectors_ND), among, scorer=settings.scorer, top=1
        ).categories_NT[:, 0]
        for modality, shown in handful.shown.items()
        if modality in fitted.weights and len(among.row_ids)
    }


def _row(handful: _FewShot, method: str, modality: str, named_N: Ints, settings: Evaluate) -> dict[str, Any]:
    shown = handful.shown[modality]
    hit_N: Bools = (named_N[:, None] == shown.labels()).any(axis=1)
    low, high = share_interval(hit_N, resamples=settings.bootstrap, seed=settings.seed)
    return {
        "shots": handful.shots,
        "method": method,
        "modality": modality,
        "split": "seen",
        "top1": float(hit_N.mean()),
        "top1_low": low,
        "top1_high": high,
        "n": len(shown),
        "n_train": len(handful.train[modality]),
    }


def with_shots(base: KnowledgeBase, shots: int, *, seed: int) -> KnowledgeBase:
    """The same knowledge base with at most `shots` labelled train samples per category and modality.

    Other train samples are gone, as if never collected: neither localization nor training sees them. Objects
    are ranked at random once, so that the same ones are kept in every modality.
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
