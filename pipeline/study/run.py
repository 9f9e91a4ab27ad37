"""Run an ablation study: every variant with every seed, and estimate the differences from the reference.

A variant with a seed is a cell, computed in its own process (unless `jobs` is 1) or by a worker of the
project's engine, and stored in `<run>/studies/<name>/cells/`; a study that was stopped or changed computes
only missing cells. A cell's name is the hash of everything it depends on: settings, knowledge base, and the
source code of stage 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.environment import cores
from data.errors import DamagedError, InputError
from data.files import hash_json, write_json
from data.work import Carry
from pipeline.accuracies import percent
from pipeline.engines.choose import engine_of
from pipeline.project import ProjectFile, RunSection
from pipeline.run.code import code_hash
from pipeline.run.jobs import plan
from pipeline.run.runner import digest, run_stages
from pipeline.run.sealing import STUDY_FILES, seal_study, unseal_study
from pipeline.study.cells import read_cell, wrong_with
from pipeline.study.compute import CellWork, by_processes, compute_cells
from pipeline.study.file import Study
from pipeline.study.page import flat_settings, write_study_page
from trainer.evaluate.outcomes import NAMED_FILE, RANKS_FILE
from trainer.evaluate.seeds import Estimate, difference, estimate, estimate_of
from trainer.evaluate.tasks import CENTERS
from trainer.variant import Variant, hits_by_measure, run_variant

_RESAMPLES = 2000
# Measures of the whole space, one value per seed.
_BALANCE = {
    "modality_probe": "modality_probe_accuracy",
    "modality_knn": "modality_probe_knn",
    "modality_gap": "modality_gap_mean",
    "mixed_share": "mixed_share",
}
LOWER_IS_BETTER = frozenset({"modality_probe", "modality_knn", "modality_gap"})  # down to 0, or to chance


@dataclass(frozen=True)
class Cell:
    """The result of a variant with one seed, or its error."""

    named: pa.Table
    ranks: pa.Table
    balance: Mapping[str, float]
    error: str | None = None


def run_study(study: Study, *, jobs: int | None = None) -> dict[str, Any]:
    """Run the stages up to `encode`, compute missing cells, write study.json and study.html.

    `jobs` is the number of processes of this machine, by default one per core. Returns the content of
    study.json (docs/metrics.md). Raises InputError where every variant fails, or `jobs` is given to a project
    with another engine, and the errors of the engine and of the stages up to `encode`.
    """
    project = study.project
    carrying = _carrying(project, jobs)
    before = plan(project)
    run_stages(project, before[: before.index("encode") + 1])
    folder = project.run / "studies" / study.file.name
    base = hash_json([digest(project, name) for name in ("ingest", "describe-samples", "encode")])
    wanted = {
        _key(base, variant): variant
        for variant in [*study.reference, *(v for each in study.variants.values() for v in each)]
    }
    with carrying as carry:
        compute_cells(CellWork(project.kb, folder / "cells"), wanted, carry)
    cells = {key: _read(folder / "cells" / key) for key in wanted}
    if all(cell.error for cell in cells.values()):
        raise InputError(f"every variant failed: {next(iter(cells.values())).error}")
    found = _summary(study, base, cells)
    unseal_study(folder)
    write_json(folder / STUDY_FILES[0], found)
    write_study_page(found, folder / STUDY_FILES[1])
    seal_study(folder)
    return found


def _key(base: str, variant: Variant) -> str:
    return hash_json([base, asdict(variant), code_hash(run_variant)])[:24]


def _carrying(project: ProjectFile, jobs: int | None) -> AbstractContextManager[Carry]:
    """What computes cells: `jobs` processes of this machine, or the workers of the project's engine."""
    if project.running.engine == "local":
        return nullcontext(by_processes(jobs or cores()))
    if jobs is not None:
        raise InputError(
            f'--jobs counts processes of this machine, and [run] engine = "{project.running.engine}" computes'
            " on its workers: leave out --jobs"
        )
    return _on_engine(project.running)


@contextmanager
def _on_engine(settings: RunSection) -> Iterator[Carry]:
    with engine_of(settings) as engine:
        yield engine.map


def _read(folder: Path) -> Cell:
    content = read_cell(folder)
    if content is None:
        path, wrong = wrong_with(folder) or (folder, "changed meanwhile")
        raise DamagedError(path, wrong)
    if content["error"]:
        return Cell(pa.table({}), pa.table({}), {}, content["error"])
    named, ranks = pq.read_table(folder / NAMED_FILE), pq.read_table(folder / RANKS_FILE)
    return Cell(named, ranks, content["balance"])


def _summary(study: Study, base: str, cells: Mapping[str, Cell]) -> dict[str, Any]:
    def of(variants: Sequence[Variant], at_test: str) -> _Outcome:
        return _Outcome.of([cells[_key(base, variant)] for variant in variants], at_test)

    reference = of(study.reference, CENTERS)
    outcomes = {
        place: of(variants, study.file.ablations[place[0]].variants[place[1]].at_test)
        for place, variants in study.variants.items()
    }
    ablations = []
    for name, part in study.file.ablations.items():
        rows = [_variant_row(study, name, each, outcomes[name, each], reference) for each in part.variants]
        if not any(row["is_reference"] for row in rows):
            own = {"is_reference": True, "with_name": study.project.localize.with_name}
            rows.insert(0, {**_row("the reference", {}, reference), **own})
        ablations.append({"name": name, "question": part.question, "variants": rows})
    n = len({str(sample) for cell in reference.cells for sample in cell.named["sample_id"].to_pylist()})
    return {
        "name": study.file.name,
        "dataset": study.project.name,
        "seeds": study.file.seeds,
        "n_samples": n,
        "reference": {
            "localize": asdict(study.project.localize),
            "train": asdict(study.project.train),
            "evaluate": asdict(study.project.evaluate),
        },
        "ablations": ablations,
        "claims": [_claim(claim, ablations) for claim in study.file.claims],
    }


@dataclass(frozen=True)
class _Outcome:
    """A variant with all seeds."""

    cells: list[Cell]
    hits: Mapping[str, Any]
    balance: Mapping[str, list[float]]
    error: str | None

    @classmethod
    def of(cls, cells: list[Cell], at_test: str) -> _Outcome:
        error = next((cell.error for cell in cells if cell.error), None)
        if error:
            return cls(cells, {}, {}, error)
        balance = {
            name: [cell.balance[measure] for cell in cells]
            for name, measure in _BALANCE.items()
            if all(measure in cell.balance for cell in cells)
        }
        found = hits_by_measure([(cell.named, cell.ranks) for cell in cells], at_test)
        if at_test != CENTERS:  # retrieval and the space are the reference's
            found, balance = {m: a for m, a in found.items() if "r10" not in m}, {}
        return cls(cells, found, balance, None)


def _variant_row(
    study: Study, ablation: str, name: str, outcome: _Outcome, reference: _Outcome
) -> dict[str, Any]:
    section = study.file.ablations[ablation].variants[name]
    settings = section.model_dump(exclude_defaults=True)
    row = _row(name, settings, outcome)
    # Controls in the test, such as `class_name`, are not the centers.
    variant = study.variants[ablation, name][0]
    row["with_name"] = section.at_test == variant.anchors == CENTERS and variant.localize.with_name
    row["is_reference"] = not settings or (
        study.variants[ablation, name] == study.reference and section.at_test == CENTERS
    )
    if row["is_reference"]:
        return row
    against: dict[str, Any] = {}
    for measure in outcome.hits:
        if measure in reference.hits:
            apart = difference(outcome.hits[measure], reference.hits[measure], resamples=_RESAMPLES, seed=0)
            if apart is not None:
                against[measure] = _apart(measure, apart)
    for measure, values in outcome.balance.items():
        if measure in reference.balance:
            pairs = zip(values, reference.balance[measure], strict=True)
            against[measure] = _apart(measure, estimate_of([a - b for a, b in pairs]))
    return {**row, "against_reference": against}


def _row(name: str, settings: Mapping[str, Any], outcome: _Outcome) -> dict[str, Any]:
    measures = {
        measure: {**_bounds(estimate(each, resamples=_RESAMPLES, seed=0)), "per_seed": each.values()}
        for measure, each in outcome.hits.items()
    }
    measures |= {
        measure: {**_bounds(estimate_of(values)), "per_seed": values}
        for measure, values in outcome.balance.items()
    }
    return {
        "name": name,
        "settings": dict(flat_settings(settings)),
        "measures": measures,
        "error": outcome.error,
    }


def _bounds(found: Estimate, name: str = "mean") -> dict[str, float | None]:
    return {name: found.value, "low": _number(found.low), "high": _number(found.high)}


def _apart(measure: str, found: Estimate) -> dict[str, Any]:
    better = (found.value > 0) != (measure in LOWER_IS_BETTER)
    word = ("better" if better else "worse") if found.excludes_zero else "no difference"
    return {**_bounds(found, "difference"), "verdict": word}


def _claim(claim: Any, ablations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the reference is better than a variant; `holds` is None where it was not measured."""
    part = next(each for each in ablations if each["name"] == claim.ablation)
    row = next(each for each in part["variants"] if each["name"] == claim.variant)
    apart = row.get("against_reference", {}).get(claim.measure)
    if apart is None:
        return {"text": claim.text, "holds": None, "numbers": row["error"] or "not measured here"}
    reference = next(each for each in part["variants"] if each["is_reference"])
    numbers = (
        f"reference {percent(reference['measures'][claim.measure]['mean'])}, {claim.variant}"
        f" {percent(row['measures'][claim.measure]['mean'])}: lead {percent(-apart['difference'])}"
        f" [{percent(-apart['high'])}, {percent(-apart['low'])}]"
    )
    return {"text": claim.text, "holds": apart["verdict"] == "worse", "numbers": numbers}


def _number(value: float) -> float | None:
    return None if value != value else value
