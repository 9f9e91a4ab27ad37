"""Run one variant of the method with one seed in memory: centers, heads and outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import TrainingError
from trainer.align.train import fit
from trainer.evaluate.few_shot import with_shots
from trainer.evaluate.measure import Measured, measure
from trainer.evaluate.seeds import Hits
from trainer.evaluate.tasks import CENTERS, anchor_sets
from trainer.inputs import load_controls, open_kb
from trainer.localize.centers import read_centers
from trainer.localize.choose import choose_centers
from trainer.settings import Evaluate, Localize, Train

_DEPTH = 10  # of the recalls


@dataclass(frozen=True)
class Variant:
    """Everything that a run depends on besides its knowledge base."""

    localize: Localize
    train: Train
    evaluate: Evaluate
    anchors: str = CENTERS  # the anchor set that represents the categories, in training and after it
    shots: int | None = None  # labelled train samples per category and modality


def run_variant(kb: Path, variant: Variant) -> Measured:
    """Choose centers, train (where the variant has it enabled) and measure; nothing is written.

    Raises TrainingError for anchors that the knowledge base does not have, and what the steps raise.
    """
    base = open_kb(kb)
    if variant.shots is not None:
        base = with_shots(base, variant.shots, seed=variant.localize.seed)
    centers = read_centers(base, choose_centers(base, variant.localize)[0])
    sets = anchor_sets(centers, load_controls(base), seed=variant.evaluate.seed)
    if variant.anchors not in sets:
        raise TrainingError(f"there are no anchors {variant.anchors!r}; there are: {', '.join(sets)}")
    anchors = sets[variant.anchors].texts
    heads = fit(base, anchors, variant.train).heads if variant.train.enabled else None
    quick = replace(
        variant.evaluate,
        bootstrap=1,
        few_shot=(),
        probe=False,
        sweeps=False,
        baselines=False,
        stacking_folds=0,
        repeats=0,
    )
    return measure(base, anchors, heads, quick)


def hits_by_measure(cells: Sequence[tuple[pa.Table, pa.Table]], anchors: str = CENTERS) -> dict[str, Hits]:
    """The hits of one variant by measure, from its outcome tables (`named`, `ranks`), one pair for each seed.

    A hit of seen, unseen, unseen_among_all: the predicted category is right; zero_shot: the same by the
    untrained encoder, on unseen categories. A hit of r10_mean, r10_worst, object_r10_mean, object_r10_worst:
    a relevant item is among the ten nearest. Groups are, for recognition, the modalities without text (which
    is in the text space from the start) unless it is the only one; for retrieval, the ordered pairs of all
    modalities. A measure without samples is absent.
    """
    found: dict[str, Hits] = {}
    named = [table.filter(pc.equal(table["anchors"], anchors)) for table, _ in cells]
    for measure_, model, split in (
        ("seen", "aligned", "seen"),
        ("unseen", "aligned", "unseen"),
        ("unseen_among_all", "aligned", "unseen_among_all"),
        ("zero_shot", "zero_shot", "unseen"),
    ):
        chosen = [_where(table, model=model, split=split) for table in named]
        media = [table.filter(pc.not_equal(table["modality"], "text")) for table in chosen]
        rows = media if len(media[0]) else chosen
        if len(rows[0]):
            found[measure_] = _hits(
                [(_object(t), t["modality"].to_numpy(), t["hit"].to_numpy()) for t in rows]
            )
    for level, prefix in (("category", "r10"), ("object", "object_r10")):
        tables = [_where(ranks, level=level) for _, ranks in cells]
        if len(tables[0]):
            of_pairs = _hits([(_object(t), _pair(t), t["rank"].to_numpy() <= _DEPTH) for t in tables])
            found[f"{prefix}_mean"] = of_pairs
            found[f"{prefix}_worst"] = replace(of_pairs, worst=True)
    return found


def _where(table: pa.Table, **values: str) -> pa.Table:
    for name, value in values.items():
        table = table.filter(pc.equal(table[name], value))
    return table


def _object(table: pa.Table) -> np.ndarray:
    return np.asarray(pc.coalesce(table["object_id"], table["sample_id"]).to_numpy(), dtype=str)


def _pair(table: pa.Table) -> np.ndarray:
    return np.asarray(
        pc.binary_join_element_wise(table["query"], table["gallery"], "→").to_numpy(), dtype=str
    )


def _hits(seeds: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Hits:
    """Sum hits by object and group for each seed; every seed must have the same samples."""
    seeds = list(seeds)
    objects, groups = (np.unique(np.asarray(seeds[0][column], dtype=str)) for column in (0, 1))
    hits_SOG = np.zeros((len(seeds), len(objects), len(groups)))
    asked_OG = np.zeros((len(objects), len(groups)))
    for s, (object_N, group_N, hit_N) in enumerate(seeds):
        place = np.searchsorted(objects, object_N), np.searchsorted(groups, np.asarray(group_N, dtype=str))
        np.add.at(hits_SOG[s], place, np.asarray(hit_N, dtype=float))
        if s == 0:
            np.add.at(asked_OG, place, 1.0)
    return Hits(tuple(objects.tolist()), tuple(groups.tolist()), hits_SOG, asked_OG)
