"""Measure a run: recognition with controls, retrieval, balance, calibration, parameters and rejects."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.threads import one_thread_each, side_by_side
from data.work import Carry
from kb_builder.store.cards import read_card
from trainer.align.heads import Heads
from trainer.evaluate.balance import balance_rows
from trainer.evaluate.calibration import calibration_rows
from trainer.evaluate.few_shot import few_shot_rows
from trainer.evaluate.name_free import NAME_FREE, name_free_rows
from trainer.evaluate.outcomes import NAMED, RecognitionOutcomes, named_table, ranks_table, write_outcomes
from trainer.evaluate.predictions import predict_tasks
from trainer.evaluate.probe import fit_probes, probe_rows
from trainer.evaluate.recognition import recognition_rows, sweep_rows
from trainer.evaluate.retrieval import retrieval_rows
from trainer.evaluate.tasks import CENTERS, anchor_sets, represent, tasks
from trainer.evaluate.trainings.baselines import with_baselines
from trainer.evaluate.trainings.elsewhere import open_given, train_elsewhere
from trainer.evaluate.trainings.given import Given, given_of
from trainer.evaluate.trainings.order import Ready
from trainer.evaluate.trust.judge import TrustRows, judge
from trainer.evaluate.unmeasured import unmeasured_rows
from trainer.inputs import KnowledgeBase, count_rejects, seen_categories
from trainer.records import Centers, SampleSet
from trainer.settings import Evaluate


@dataclass(frozen=True)
class Measured:
    """The metrics of a run, and the outcome of every sample (`outcomes.NAMED`, `outcomes.RANKS`)."""

    metrics: dict[str, Any]
    named: pa.Table
    ranks: pa.Table


def evaluate(kb: Path, run: Path, settings: Evaluate, carry: Carry | None = None) -> dict[str, Any]:
    """Measure a run and write `<run>/named.parquet` and `<run>/ranks.parquet`; returns the metrics.

    `carry`: where the trainings of the evaluation are made; None: in this process. No byte depends on it.
    Metrics and errors are described at `measure`.
    """
    given = open_given(kb, run, settings)
    ready = train_elsewhere(given, kb, run, carry) if carry else {}
    measured = _measure_given(given, ready)
    write_outcomes(run, measured.named, measured.ranks)
    return measured.metrics


def measure(base: KnowledgeBase, centers: Centers, heads: Heads | None, settings: Evaluate) -> Measured:
    """Measure some heads (None: the zero-shot encoder alone) with some centers; nothing is written.

    Keys of the metrics, described in docs/metrics.md: `transductive` (whether unlabelled test samples helped
    to choose the centers), `with_name` (whether the bare name is one of them), `unmeasured` (what could not
    be measured, and why), `recognition`, `zero_shot`, `name_free`, `probe`, `few_shot`, `sweeps`,
    `calibration`, `trust`, `stacking`, `repeats`, `retrieval`, `balance`, `parameters`, `rejects` (lists of
    flat rows) and `counts` (samples without a vector, and those that no head maps). With heads,
    `recognition`, `retrieval` and `balance` are those of the aligned space, else those of the zero-shot
    encoder; the latter's recognition is always in `zero_shot`. `calibration` and `sweeps` cover both spaces;
    in `balance` the run's own space comes first, then the baselines. Raises TrainingError where the heads
    were trained on other encoders.
    """
    return _measure_given(given_of(base, centers, heads, settings), {})


def _measure_given(given: Given, ready: Ready) -> Measured:
    """`measure`, with the results of the trainings that are made already."""
    together = given.together
    with one_thread_each() if together else nullcontext():
        return _measure(given, ready, together=together)


def _measure(given: Given, ready: Ready, *, together: bool) -> Measured:
    """As above; `together`: independent parts run side by side, one thread each."""
    base, centers, heads, settings = given.base, given.centers, given.heads, given.settings
    frozen, spaces, resampling = given.frozen, given.spaces, given.resampling
    how: dict[str, Any] = {"together": together, "ready": ready}
    anchors = anchor_sets(centers, given.controls, seed=settings.seed)
    # Samples that heads have mapped are compared with texts in the heads' space.
    anchors_of = {"zero_shot": anchors, "aligned": represent(anchors, heads) if heads else {}}
    seen_C = seen_categories(base)
    to_do = tasks(seen_C, labels_used=heads is not None or centers.labels_guided)

    trust = (
        judge(base, spaces, frozen, given.place, centers, heads, settings, **how)
        if heads is not None
        else TrustRows()
    )
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in spaces}
    outcomes: dict[str, list[RecognitionOutcomes]] = {name: [] for name in spaces}
    sweeps: list[dict[str, Any]] = []
    calibration: list[dict[str, Any]] = []

    def recognise(model: str, samples: SampleSet) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        texts = anchors_of[model]
        predictions = predict_tasks(samples, texts, to_do, scorer=settings.scorer, sweeps=settings.sweeps)
        return (
            *recognition_rows(predictions, model=model, **resampling),
            sweep_rows(predictions, model=model, **resampling),
            calibration_rows(
                samples,
                texts[CENTERS].texts,
                predictions,
                model=model,
                scorer=settings.scorer,
                constant_C=trust.constant_of(samples.modality, model),
            ),
        )

    own = "aligned" if heads else "zero_shot"
    test = {modality: s.split("test") for modality, s in spaces.get(own, {}).items()}
    of_sets = [(model, samples) for model, sets in spaces.items() for samples in sets.values()]
    jobs: list[Any] = [partial(retrieval_rows, test, **resampling)]
    jobs += [partial(recognise, *each) for each in of_sets]
    (retrieval, retrieved), *found = side_by_side(jobs, together=together)
    for (model, _), (recognised, of_samples, swept, calibrated) in zip(of_sets, found, strict=True):
        rows[model] += recognised
        outcomes[model] += of_samples
        sweeps += swept
        calibration += calibrated
    name_free = anchors[NAME_FREE].texts if NAME_FREE in anchors else None
    probes = fit_probes(frozen, together=together) if settings.probe else {}
    metrics = {
        "transductive": centers.transductive,
        "with_name": centers.with_name,
        "unmeasured": unmeasured_rows(
            base,
            centers,
            recognised={row["modality"] for row in rows.get(own, ())},
            spaces=spaces,
            frozen=frozen,
            heads=heads,
        ),
        "recognition": rows.get(own, []),
        "zero_shot": rows.get("zero_shot", []),
        "name_free": name_free_rows(outcomes, name_free, **resampling),
        "probe": probe_rows(frozen, probes, seen_C, outcomes.get(own, []), **resampling)
        if settings.probe
        else [],
        "few_shot": few_shot_rows(base, frozen, centers, heads, settings, probes=probes, **how),
        "sweeps": sweeps,
        "calibration": calibration + trust.calibration,
        "trust": trust.trust,
        "stacking": trust.stacking,
        "repeats": trust.repeats,
        "retrieval": retrieval,
        "balance": with_baselines(partial(balance_rows, test, retrieval, anchors=own), given, anchors, **how),
        "parameters": _parameters(base, heads) if heads else [],
        "rejects": count_rejects(base.folder),
        "counts": _counts(frozen, given.without_vector, heads) if heads else {},
    }
    tables = [named_table(base, found, model=name) for name, found in outcomes.items()]
    named_samples = pa.concat_tables([NAMED.empty_table(), *tables])
    return Measured(metrics, named_samples, ranks_table(base, retrieved, model=own))


def _counts(
    frozen: dict[str, SampleSet], without_vector: dict[str, int], heads: Heads
) -> dict[str, dict[str, int]]:
    """How many samples had no vector or no head, by modality."""
    without_head = {m: len(s) for m, s in frozen.items() if m not in heads.modalities}
    return {"samples_without_vector": without_vector, "samples_without_head": without_head}


def _parameters(base: KnowledgeBase, heads: Heads) -> list[dict[str, Any]]:
    """Rows {modality, head, encoder, ratio}: parameters trained and frozen (null where unknown)."""
    rows = []
    for modality in sorted(heads.weights):
        role = "text" if modality == "text" else "samples"
        head, frozen = heads.parameters(modality), read_card(base.encoder(role)).get("parameters")
        ratio = head / frozen if frozen else None
        rows.append({"modality": modality, "head": head, "encoder": frozen, "ratio": ratio})
    return rows
