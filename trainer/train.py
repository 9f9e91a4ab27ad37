"""Align the heads: LLM-augmented contrastive training, the epoch that names val samples best is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from data.errors import TrainingError
from kb_builder.schemas import write_table
from trainer.aligner import Aligner, threads_for
from trainer.centers import load_centers
from trainer.heads import Heads, save_heads
from trainer.inputs import KnowledgeBase, load_sample_texts, load_samples, open_kb, seen_categories
from trainer.pairs import Pairs, make_pairs
from trainer.records import Centers, SampleSet
from trainer.scoring import score
from trainer.settings import Train

TRAIN_LOG = pa.schema(
    [
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),  # 0 is the start, before the first step
        pa.field("learning_rate", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("loss_description", pa.float64()),
        pa.field("loss_center", pa.float64()),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("val_top1", pa.float64()),  # at the end of an epoch, where there are val samples
    ]
)


def train(kb: Path, run: Path, settings: Train) -> dict[str, Any]:
    """Train one head per modality; write `<run>/heads.safetensors` and `<run>/train_log.parquet`.

    All modalities are trained together, each with an equal share of every batch. A sample's positives are a
    text drawn from those about it and, where it is labelled, one drawn from its category's centers.
    The epoch kept is the one that names the val samples of the trained categories best (the mean over
    modalities of top-1; the earlier one of equals), the last one where there are none. Equal inputs and
    settings give equal bits on one machine. Returns counts and what was reached. Raises TrainingError where
    nothing can be learned.
    """
    base = open_kb(kb)
    centers = load_centers(base)
    sets, without_vector = load_samples(base, "samples")
    texts, missing = load_sample_texts(base)
    pairs, texts_MT, counts = make_pairs(sets, texts, centers)
    _require_weight(pairs, settings)
    validation = _validation(base, sets, centers)

    aligner = Aligner(pairs, texts_MT, centers.category_N, settings)
    log: list[dict[str, Any]] = []
    best_epoch, best_top1, best = 0, -1.0, aligner.heads(_provenance(base, settings, 0))
    with (
        threads_for(aligner.products_per_step),
        tqdm(total=aligner.steps, desc="train", unit="step", disable=None) as bar,
    ):
        for epoch in range(settings.epochs + 1):
            rows = aligner.epoch() if epoch else [aligner.log_row()]
            bar.update(len(rows) if epoch else 0)
            heads = aligner.heads(_provenance(base, settings, epoch))
            top1 = validation.top1(heads)
            log += [{**row, "epoch": epoch, "val_top1": None} for row in rows]
            log[-1]["val_top1"] = top1
            if top1 is None or top1 > best_top1:
                best_epoch, best_top1, best = epoch, -1.0 if top1 is None else top1, heads
            bar.set_postfix(loss=rows[-1]["loss"], val=top1, refresh=False)
            if settings.patience and top1 is not None and epoch - best_epoch >= settings.patience:
                break

    save_heads(run, best)
    write_table(run / "train_log.parquet", log, TRAIN_LOG)
    return {
        **counts,
        **missing,
        "samples_without_vector": without_vector,
        "modalities": {modality: len(p.samples) for modality, p in pairs.items()},
        "steps": log[-1]["step"],
        "epoch_kept": best_epoch,
        "val_top1": None if best_top1 < 0 else best_top1,
        "loss": log[-1]["loss"],
        "temperature": log[-1]["temperature"],
    }


def _require_weight(pairs: dict[str, Pairs], settings: Train) -> None:
    """Refuse a `center_weight` that gives all weight to texts that no sample has."""
    weights = {"own": 1 - settings.center_weight, "centers": settings.center_weight}
    if not any(
        weights[kind] > 0 and getattr(p, kind).counts_N.any() for p in pairs.values() for kind in weights
    ):
        have = "categories with centers" if settings.center_weight == 0 else "descriptions"
        raise TrainingError(
            f"train.center_weight = {settings.center_weight:g} gives the only texts that the train samples"
            f" have (their {have}) no weight; choose a value between 0 and 1"
        )


@dataclass(frozen=True)
class _Validation:
    """Labelled val samples of categories that are trained on, and those categories' centers."""

    sets: dict[str, SampleSet]
    centers: Centers

    def top1(self, heads: Heads) -> float | None:
        """The mean over modalities of the share named rightly; None without val samples."""
        shares = [
            float(
                np.mean(
                    score(heads.map(m, s.vectors_ND), self.centers, top=1).categories_NT[:, 0] == s.category_N
                )
            )
            for m, s in self.sets.items()
            if m in heads.weights
        ]
        return sum(shares) / len(shares) if shares else None


def _validation(base: KnowledgeBase, sets: dict[str, SampleSet], centers: Centers) -> _Validation:
    """Only val samples of trained categories: the held-out categories must have no say, not even here."""
    seen_C = seen_categories(base)
    centers = centers.of(seen_C)
    usable_C = seen_C & (centers.counts() > 0)
    chosen = {
        m: s.take((s.splits_N == "val") & (s.category_N >= 0) & usable_C[s.category_N])
        for m, s in sets.items()
    }
    return _Validation({m: s for m, s in chosen.items() if len(s)}, centers)


def _provenance(base: KnowledgeBase, settings: Train, epoch: int) -> dict[str, Any]:
    folders = {role: folder.name for role, folder in base.encoders.items() if folder is not None}
    return {"encoders": folders, "settings": asdict(settings), "epoch": epoch}
