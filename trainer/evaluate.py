"""Measure a run: recognition with controls, retrieval, balance, parameters, rejects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from data.errors import TrainingError
from trainer.balance import balance
from trainer.calibration import calibrate
from trainer.centers import labels_guided, load_centers, transductive
from trainer.controls import anchor_sets
from trainer.geometry import unit_rows
from trainer.heads import Heads, has_heads, load_heads
from trainer.inputs import (
    KnowledgeBase,
    count_rejects,
    encoder_card,
    load_controls,
    load_samples,
    open_kb,
    seen_categories,
)
from trainer.recall import recalls
from trainer.recognition import Task, recognise, tasks
from trainer.records import Centers, SampleSet
from trainer.settings import Evaluate


def evaluate(kb: Path, run: Path, settings: Evaluate) -> dict[str, Any]:
    """The metrics of a run, in the long form of DESIGN.md's metrics.json.

    Keys: `transductive` (whether unlabelled test samples helped to choose the centers), `recognition`,
    `zero_shot`, `calibration`, `retrieval`, `balance`, `parameters`, `rejects` (lists of flat rows) and
    `counts` (samples without a vector, and those that no head maps). With heads in `run`, `recognition`,
    `retrieval` and `balance` are those of the aligned space, else those of the zero-shot encoder, whose
    recognition stands in `zero_shot` in either case; `calibration` is of both. Raises TrainingError where
    there is neither, or where the heads were trained on other encoders.
    """
    base = open_kb(kb)
    centers = load_centers(base)
    anchors = anchor_sets(centers, load_controls(base), seed=settings.seed)
    heads = load_heads(run) if has_heads(run) else None
    labels_used = heads is not None or labels_guided(base)
    to_do = tasks(seen_categories(base), labels_used=labels_used)

    zero_shot = _zero_shot_space(base)
    if heads is not None:
        space, counts = _aligned_space(base, heads)
    else:
        space, counts = zero_shot, {}
    if not space:
        raise TrainingError(
            f"{run}: nothing to evaluate: no trained heads, and the knowledge base has no zero-shot encoder;"
            " run `unibind train`, or name `zero_shot` under [encode]"
        )
    test = {modality: s.split("test") for modality, s in space.items()}
    retrieval = recalls(test, resamples=settings.bootstrap, seed=settings.seed)
    model = "aligned" if heads else "zero_shot"
    zero_shot_rows = _recognition(zero_shot, anchors, to_do, "zero_shot", settings)
    spaces = {"zero_shot": zero_shot, model: space}
    return {
        "transductive": transductive(base),
        "recognition": _recognition(space, anchors, to_do, model, settings) if heads else zero_shot_rows,
        "zero_shot": zero_shot_rows,
        "calibration": [
            row
            for name, sets in spaces.items()
            for row in calibrate(sets, centers, to_do, model=name, scorer=settings.scorer)
        ],
        "retrieval": retrieval,
        "balance": balance(test, retrieval, anchors=model),
        "parameters": _parameters(base, heads) if heads else [],
        "rejects": count_rejects(kb),
        "counts": counts,
    }


def _zero_shot_space(base: KnowledgeBase) -> dict[str, SampleSet]:
    """The samples as the untrained zero-shot encoder sees them, which shares the text space."""
    if base.encoders.get("zero_shot") is None:
        return {}
    sets, _ = load_samples(base, "zero_shot")
    return {m: replace(s, vectors_ND=unit_rows(s.vectors_ND)) for m, s in sets.items()}


def _aligned_space(
    base: KnowledgeBase, heads: Heads
) -> tuple[dict[str, SampleSet], dict[str, dict[str, int]]]:
    """The samples as the heads map them, and how many had no vector or no head, by modality."""
    for role in ("text", "samples"):
        trained_on, now = heads.metadata["encoders"].get(role), base.encoder(role).name
        if trained_on != now:
            raise TrainingError(
                f"the heads were trained on the {role} encoder {trained_on}, but the knowledge base now has"
                f" {now}; run `unibind train` again"
            )
    sets, without_vector = load_samples(base, "samples")
    without_head = {m: len(s) for m, s in sets.items() if m not in heads.modalities}
    mapped = {
        m: replace(s, vectors_ND=heads.map(m, s.vectors_ND)) for m, s in sets.items() if m in heads.modalities
    }
    return mapped, {"samples_without_vector": without_vector, "samples_without_head": without_head}


def _recognition(
    space: dict[str, SampleSet],
    anchors: dict[str, Centers],
    to_do: list[Task],
    model: str,
    settings: Evaluate,
) -> list[dict[str, Any]]:
    return recognise(
        space,
        anchors,
        to_do,
        model=model,
        scorer=settings.scorer,
        resamples=settings.bootstrap,
        seed=settings.seed,
    )


def _parameters(base: KnowledgeBase, heads: Heads) -> list[dict[str, Any]]:
    """Rows {modality, head, encoder, ratio}: numbers trained and frozen (null where it is not known)."""
    frozen = encoder_card(base.encoder("samples")).get("parameters")
    return [
        {
            "modality": modality,
            "head": heads.parameters(modality),
            "encoder": frozen,
            "ratio": heads.parameters(modality) / frozen if frozen else None,
        }
        for modality in sorted(heads.weights)
    ]
