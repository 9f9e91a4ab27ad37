"""Compare two or more runs on the same samples: which is better, and is the difference significant?

Answers are joined sample by sample (pipeline/compare/joined.py); all runs are compared with the first. An
interval is the 95% paired bootstrap over objects (trainer/evaluate/intervals.py).
Shapes: B resamples, R runs, G groups.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import InputError, first_line
from data.modality import MODALITIES
from data.reads import reading
from data.show import json_text
from pipeline.accuracies import SPLITS
from pipeline.compare.joined import JoinedAnswers, Summary, columns, joined
from pipeline.compare.questions import NAMED_KEYS, Run, nothing_in_common, relabelled, same_tasks
from pipeline.description_gain import gains
from pipeline.project import load_project, require_plain
from trainer.evaluate.intervals import holm, interval_of, mcnemar
from trainer.evaluate.outcomes import NAMED, NAMED_FILE, RANKS, RANKS_FILE
from trainer.evaluate.tasks import CENTERS
from trainer.records import Doubles

RESAMPLES, SEED = 2000, 0
_DEPTH = 10
_RANK_KEYS = ["level", "query", "gallery", "sample_id"]


@dataclass(frozen=True)
class ComparedValue:
    """One number of a run beside that of the first run; `p` is from McNemar's exact test or the swap test."""

    measure: str  # top1 | r10_mean | r10_worst
    group: str  # split or level
    modality: str | None  # None: all of them
    run: str
    first: float
    value: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float  # Holm-corrected for the number of runs
    n: int  # questions that all runs answered
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The result of comparing runs with the first of them."""

    runs: tuple[dict[str, Any], ...]  # name, folder, model, with_name, left_out (samples not in all runs)
    lines: tuple[ComparedValue, ...]
    balance: tuple[dict[str, Any], ...]  # measure, run, value
    notes: tuple[str, ...] = field(default=())
    # what descriptions gain without the name (docs/metrics.md): split, run, gain, low, high, texts
    descriptions: tuple[dict[str, Any], ...] = field(default=())

    def as_json(self) -> str:
        """The comparison as an indented JSON object."""
        return json_text(asdict(self))


def open_run(place: Path) -> Run:
    """The run in a folder or of a project file. Raises InputError where it has no evaluation."""
    folder = load_project(place).run if place.suffix == ".toml" else place
    path = folder / "metrics.json"
    if folder.is_dir():
        require_plain(folder)
    try:
        metrics = json.loads(reading(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: no metrics.json; name a run folder or a project file, after `unibind evaluate`"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); run `unibind evaluate` again") from None
    if not isinstance(metrics, dict):
        raise InputError(f"{path}: damaged (no JSON object); run `unibind evaluate` again")
    models = {row.get("model", "") for row in metrics.get("recognition", ())}
    model = "aligned" if "aligned" in models else "zero_shot"
    named, ranks = _read(folder / NAMED_FILE, NAMED), _read(folder / RANKS_FILE, RANKS)
    ours = pc.and_(pc.equal(named["anchors"], CENTERS), pc.equal(named["model"], model))
    name = str(metrics.get("dataset", folder.name))
    return Run(name, folder, model, metrics, named.filter(ours), ranks)


def compare(runs: Sequence[Run], *, resamples: int = RESAMPLES, seed: int = SEED) -> Comparison:
    """Compare runs with the first of them. Raises InputError for fewer than two, or no sample in common."""
    if len(runs) < 2:
        raise InputError("a single run cannot be compared; name two or more")
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        again = next(folder for folder in folders if folders.count(folder) > 1)
        raise InputError(f"{again}: named twice; name different runs")
    names = _distinct([run.name for run in runs], [run.folder for run in runs])
    runs, pairing = same_tasks(runs, names)
    named = joined([run.named for run in runs], NAMED_KEYS, "hit")
    ranks = joined([run.ranks for run in runs], _RANK_KEYS, "rank")
    if len(named) == 0 and len(ranks) == 0:
        raise InputError(nothing_in_common(runs, names))
    lines = _recognition(named, names, resamples, seed) + _retrieval(ranks, names, resamples, seed)
    common = _sample_ids(named, ranks)
    described = [
        {
            "name": name,
            "folder": str(run.folder),
            "model": run.model,
            "with_name": bool(run.metrics.get("with_name")),
            "left_out": len(_sample_ids(run.named, run.ranks) - common),
        }
        for name, run in zip(names, runs, strict=True)
    ]
    notes = (*pairing, *_notes(runs, names), *relabelled(runs, names))
    balance, descriptions = tuple(_balance(runs, names)), tuple(_descriptions(runs, names))
    return Comparison(tuple(described), tuple(lines), balance, notes, descriptions)


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.ParquetFile(reading(path)).read()
    except FileNotFoundError:
        raise InputError(f"{path}: missing; run `unibind evaluate` again") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); run `unibind evaluate` again") from None
    if table.column_names != schema.names:
        raise InputError(f"{path}: has other columns than this version writes; run `unibind evaluate` again")
    return table


def _distinct(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The runs' names; if two are equal, the folders' names; if these are too, with numbers."""
    if len(set(names)) < len(names):
        names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return list(names)


def _sample_ids(*tables: pa.Table) -> set[str]:
    return {name for table in tables for name in pc.unique(table["sample_id"]).to_pylist()}


def _recognition(table: pa.Table, names: Sequence[str], resamples: int, seed: int) -> list[ComparedValue]:
    lines: list[ComparedValue] = []
    for split in SPLITS:
        block = table.filter(pc.equal(table["split"], split))
        modalities = [m for m in MODALITIES if pc.any(pc.equal(block["modality"], m)).as_py()]
        for modality in modalities:
            rows = block.filter(pc.equal(block["modality"], modality))
            answers = JoinedAnswers.of(rows, ["modality"], columns(rows, len(names)) > 0)
            hits_NR = answers.hits_NR
            p = [mcnemar(hits_NR[:, run], hits_NR[:, 0]) for run in range(1, len(names))]
            summary = answers.summary(_mean, resamples=resamples, seed=seed)
            lines += _lines("top1", split, modality, names, summary, p)
        media = [m for m in modalities if m != "text"] or modalities
        if len(media) > 1:
            rows = block.filter(pc.is_in(block["modality"], pa.array(media)))
            answers = JoinedAnswers.of(rows, ["modality"], columns(rows, len(names)) > 0)
            summary = answers.summary(_mean, resamples=resamples, seed=seed)
            lines += _lines("top1", split, None, names, summary, summary.p)
    return lines


def _retrieval(table: pa.Table, names: Sequence[str], resamples: int, seed: int) -> list[ComparedValue]:
    lines: list[ComparedValue] = []
    for level in ("category", "object"):
        rows = table.filter(pc.equal(table["level"], level))
        if len(rows) == 0:
            continue
        answers = JoinedAnswers.of(rows, ["query", "gallery"], columns(rows, len(names)) <= _DEPTH)
        for measure, statistic in (("r10_mean", _mean), ("r10_worst", _worst)):
            summary = answers.summary(statistic, resamples=resamples, seed=seed)
            lines += _lines(measure, level, None, names, summary, summary.p)
    return lines


def _mean(shares_G: Doubles) -> Doubles:
    return np.asarray(shares_G.mean(axis=-1))


def _worst(shares_G: Doubles) -> Doubles:
    return np.asarray(shares_G.min(axis=-1))


def _lines(
    measure: str,
    group: str,
    modality: str | None,
    names: Sequence[str],
    summary: Summary,
    p: Sequence[float],
) -> list[ComparedValue]:
    """One line per run but the first."""
    lines = []
    first = summary.value_R[0]
    for name, value, ahead_B, one, each in zip(
        names[1:], summary.value_R[1:], summary.ahead_BR.T, p, holm(p), strict=True
    ):
        low, high = interval_of(ahead_B)
        numbers = (float(first), float(value), float(value - first), low, high, one, each)
        lines.append(
            ComparedValue(measure, group, modality, name, *numbers, summary.n, verdict(low, high, each))
        )
    return lines


def verdict(low: float, high: float, p: float) -> str:
    """The verdict in words: a difference only where interval and corrected p agree on it."""
    if p < 0.05 and low > 0:
        return "better"
    if p < 0.05 and high < 0:
        return "worse"
    return "no difference that these samples can show"


def _balance(runs: Sequence[Run], names: Sequence[str]) -> Iterable[dict[str, Any]]:
    values = []
    for run in runs:
        rows = run.metrics.get("balance", ())
        own = rows[0]["anchors"] if rows else None  # the run's own space comes before the baselines
        values.append({row["measure"]: row["value"] for row in rows if row["anchors"] == own})
    for measure in dict.fromkeys(measure for each in values for measure in each):
        for name, each in zip(names, values, strict=True):
            yield {"measure": measure, "run": name, "value": each.get(measure)}


def _descriptions(runs: Sequence[Run], names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """What each run's descriptions gain over the bare name: the mean of modalities, or the only one."""
    main = [{row.split: row for row in reversed(gains(run.metrics, run.model))} for run in runs]
    for split in SPLITS:
        for name, rows in zip(names, main, strict=True):
            if split in rows:
                row = rows[split]
                yield {
                    "split": split,
                    "run": name,
                    "gain": row.gain,
                    "low": row.low,
                    "high": row.high,
                    "texts": row.texts,
                }


def _notes(runs: Sequence[Run], names: Sequence[str]) -> Iterable[str]:
    """Notes on what limits the comparison."""
    chances = [
        {(row["modality"], row["split"]): row["chance"] for row in run.metrics.get("recognition", ())}
        for run in runs
    ]
    for name, own in zip(names[1:], chances[1:], strict=True):
        splits = {key[1] for key in own.keys() & chances[0].keys() if own[key] != chances[0][key]}
        if splits:
            yield (
                f"{name} had another number of candidate categories than {names[0]} on"
                f" {', '.join(sorted(splits)).replace('_', ' ')}: the tasks differ"
            )
    if len({run.model for run in runs}) > 1:
        yield "some runs are trained and some are not: " + ", ".join(
            f"{name} {run.model}" for name, run in zip(names, runs, strict=True)
        )
    if len({bool(run.metrics.get("with_name")) for run in runs}) > 1:
        holding = [name for name, run in zip(names, runs, strict=True) if run.metrics.get("with_name")]
        yield f"the centers of {', '.join(holding)} include the bare category names; the others' do not"
