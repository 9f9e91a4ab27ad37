"""Two or more runs on the same samples: who is better, and could it be luck?

All that is compared is joined sample by sample; the first run is what the others are compared with. An
interval is the 95% paired bootstrap over objects (trainer/paired.py). Shapes: N rows of the joined table,
O objects, B resamples, R runs, G groups (modalities, or pairs of them), K = G · (R + 1) columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import InputError, first_line
from data.modality import MODALITIES
from pipeline.project import load_project
from pipeline.table import CENTERS, SPLITS
from trainer.outcomes import NAMED, NAMED_FILE, RANKS, RANKS_FILE
from trainer.paired import holm, interval_of, mcnemar, resampled
from trainer.records import Bools, Doubles, Ints

RESAMPLES, SEED = 2000, 0
_DEPTH = 10
_NAMED_KEYS = ["split", "modality", "sample_id"]
_RANK_KEYS = ["level", "query", "gallery", "sample_id"]


@dataclass(frozen=True)
class Run:
    """What an evaluated run left on disk; `model` is the one that its recognition is of."""

    name: str
    folder: Path
    model: str
    metrics: Mapping[str, Any]
    named: pa.Table  # of that model, by the LLM centers
    ranks: pa.Table


@dataclass(frozen=True)
class Line:
    """One number of one run beside that of the first run; `p` is exact McNemar or the bootstrap's."""

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
    p_holm: float  # corrected for the number of runs that are compared with the first
    n: int  # answers that all runs have
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Everything that is told of some runs; the first is the one that the others are compared with."""

    runs: tuple[dict[str, Any], ...]  # name, folder, model, and samples that not all runs have
    lines: tuple[Line, ...]
    balance: tuple[dict[str, Any], ...]  # measure, run, value
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> str:
        """The same as an indented JSON object."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def open_run(place: Path) -> Run:
    """The run in a folder, or of a project file. Raises InputError where it was not evaluated."""
    folder = load_project(place).run if place.suffix == ".toml" else place
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: no metrics.json there; name a run folder or a project file, after `unibind evaluate`"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); run `unibind evaluate` again") from None
    models = {row.get("model", "") for row in metrics.get("recognition", ())}
    model = "aligned" if "aligned" in models else "zero_shot"
    named, ranks = _read(folder / NAMED_FILE, NAMED), _read(folder / RANKS_FILE, RANKS)
    ours = pc.and_(pc.equal(named["anchors"], CENTERS), pc.equal(named["model"], model))
    name = str(metrics.get("dataset", folder.name))
    return Run(name, folder, model, metrics, named.filter(ours), ranks)


def compare(runs: Sequence[Run], *, resamples: int = RESAMPLES, seed: int = SEED) -> Comparison:
    """Compare runs with the first of them. Raises InputError for fewer than two, or no sample in common."""
    if len(runs) < 2:
        raise InputError("one run alone cannot be compared; name two or more")
    names = _distinct([run.name for run in runs], [run.folder for run in runs])
    named = _joined([run.named for run in runs], _NAMED_KEYS, "hit")
    ranks = _joined([run.ranks for run in runs], _RANK_KEYS, "rank")
    if len(named) == 0 and len(ranks) == 0:
        raise InputError(
            f"{runs[0].folder} and {', '.join(str(run.folder) for run in runs[1:])} have no sample in common:"
            " they are runs of different data"
        )
    lines = _recognition(named, names, resamples, seed) + _retrieval(ranks, names, resamples, seed)
    common = _sample_ids(named, ranks)
    told = [
        {
            "name": name,
            "folder": str(run.folder),
            "model": run.model,
            "left_out": len(_sample_ids(run.named, run.ranks) - common),
        }
        for name, run in zip(names, runs, strict=True)
    ]
    return Comparison(tuple(told), tuple(lines), tuple(_balance(runs, names)), tuple(_notes(runs, names)))


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise InputError(f"{path}: missing; run `unibind evaluate` again") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); run `unibind evaluate` again") from None
    if table.column_names != schema.names:
        raise InputError(f"{path}: has other columns than this version writes; run `unibind evaluate` again")
    return table


def _distinct(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The runs' names; where two are the same, their folders'; and where those are, too, numbered."""
    if len(set(names)) < len(names):
        names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return list(names)


def _joined(tables: Sequence[pa.Table], keys: list[str], answer: str) -> pa.Table:
    """The rows that every table has, by key: the keys, the first's object, and the answer of each."""
    joined = tables[0].select([*keys, "object_id", answer]).rename_columns([*keys, "object_id", "answer_0"])
    for number, table in enumerate(tables[1:], start=1):
        other = table.select([*keys, answer]).rename_columns([*keys, f"answer_{number}"])
        joined = joined.join(other, keys=keys, join_type="inner")
    return joined.sort_by([(key, "ascending") for key in keys])


def _sample_ids(*tables: pa.Table) -> set[str]:
    return {name for table in tables for name in pc.unique(table["sample_id"]).to_pylist()}


@dataclass(frozen=True)
class _Answers:
    """Hits of R runs on the same questions, the group of each, and the object that it is about."""

    hits_NR: Bools
    group_N: Ints
    unit_N: Ints

    def shares(self, resamples: int, seed: int) -> tuple[Doubles, Doubles]:
        """The share of hits of each group and run, float64[G, R], and resampled, float64[B, G, R]."""
        groups, runs = int(self.group_N.max()) + 1, self.hits_NR.shape[1]
        sums = np.zeros((int(self.unit_N.max()) + 1, groups, runs + 1))
        np.add.at(
            sums, (self.unit_N, self.group_N), np.column_stack([self.hits_NR, np.ones(len(self.hits_NR))])
        )
        drawn = resampled(sums.reshape(len(sums), -1), resamples=resamples, seed=seed)
        drawn = drawn.reshape(resamples, groups, runs + 1)
        whole = sums.sum(axis=0)
        with np.errstate(invalid="ignore"):  # no question of a group was drawn: no share
            return whole[:, :-1] / whole[:, -1:], drawn[..., :-1] / drawn[..., -1:]


def _answers(table: pa.Table, groups: Sequence[str], hits_NR: Bools) -> _Answers:
    """`groups`: the columns that tell the groups apart; numbers follow the sorted order of their values."""
    labels = pc.binary_join_element_wise(*[table[name] for name in groups], "\n")
    # A sample without an object is about itself; no object id has a line break.
    own = pc.binary_join_element_wise("\n", table["sample_id"], "")
    units = pc.coalesce(table["object_id"], own)
    return _Answers(hits_NR, _numbers(labels), _numbers(units))


def _numbers(column: pa.ChunkedArray) -> Ints:
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64)


def _recognition(table: pa.Table, names: Sequence[str], resamples: int, seed: int) -> list[Line]:
    lines: list[Line] = []
    for split in SPLITS:
        block = table.filter(pc.equal(table["split"], split))
        modalities = [m for m in MODALITIES if pc.any(pc.equal(block["modality"], m)).as_py()]
        for modality in modalities:
            rows = block.filter(pc.equal(block["modality"], modality))
            hits_NR = _columns(rows, len(names)).astype(np.bool_)
            now, drawn = _answers(rows, ["modality"], hits_NR).shares(resamples, seed)
            p = [mcnemar(hits_NR[:, run], hits_NR[:, 0]) for run in range(1, len(names))]
            lines += _lines("top1", split, modality, names, now[0], drawn[:, 0], len(rows), p)
        media = [m for m in modalities if m != "text"] or modalities
        if len(media) > 1:
            rows = block.filter(pc.is_in(block["modality"], pa.array(media)))
            answers = _answers(rows, ["modality"], _columns(rows, len(names)).astype(np.bool_))
            now, drawn = answers.shares(resamples, seed)
            lines += _lines("top1", split, None, names, now.mean(axis=0), drawn.mean(axis=1), len(rows))
    return lines


def _retrieval(table: pa.Table, names: Sequence[str], resamples: int, seed: int) -> list[Line]:
    lines: list[Line] = []
    for level in ("category", "object"):
        rows = table.filter(pc.equal(table["level"], level))
        if len(rows) == 0:
            continue
        answers = _answers(rows, ["query", "gallery"], _columns(rows, len(names)) <= _DEPTH)
        now, drawn = answers.shares(resamples, seed)
        for measure, of_pairs in (("r10_mean", np.mean), ("r10_worst", np.min)):
            lines += _lines(
                measure, level, None, names, of_pairs(now, axis=0), of_pairs(drawn, axis=1), len(rows)
            )
    return lines


def _columns(rows: pa.Table, runs: int) -> Ints:
    return np.column_stack([rows[f"answer_{run}"].to_numpy().astype(np.int64) for run in range(runs)])


def _lines(
    measure: str,
    group: str,
    modality: str | None,
    names: Sequence[str],
    now_R: Doubles,
    drawn_BR: Doubles,
    n: int,
    p: Sequence[float] | None = None,
) -> list[Line]:
    """A line for each run but the first. Without `p`, it is the bootstrap's."""
    ahead_BR = drawn_BR[:, 1:] - drawn_BR[:, :1]
    p = p if p is not None else [_bootstrap_p(ahead_B) for ahead_B in ahead_BR.T]
    lines = []
    for name, value, ahead_B, one, each in zip(names[1:], now_R[1:], ahead_BR.T, p, holm(p), strict=True):
        low, high = interval_of(ahead_B)
        numbers = (float(now_R[0]), float(value), float(value - now_R[0]), low, high, one, each)
        lines.append(Line(measure, group, modality, name, *numbers, n, verdict(low, high, each)))
    return lines


def verdict(low: float, high: float, p: float) -> str:
    """In plain words; a difference is told only where interval and corrected p agree on it."""
    if p < 0.05 and low > 0:
        return "better"
    if p < 0.05 and high < 0:
        return "worse"
    return "no difference that these samples can show"


def _bootstrap_p(ahead_B: Doubles) -> float:
    """Two-sided: twice the share of resamples on the rarer side of zero (Davison and Hinkley 1997, ch. 4)."""
    ahead_B = ahead_B[~np.isnan(ahead_B)]
    rarer = min(int((ahead_B <= 0).sum()), int((ahead_B >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(ahead_B) + 1))


def _balance(runs: Sequence[Run], names: Sequence[str]) -> Iterable[dict[str, Any]]:
    values = [{row["measure"]: row["value"] for row in run.metrics.get("balance", ())} for run in runs]
    for measure in dict.fromkeys(measure for each in values for measure in each):
        for name, each in zip(names, values, strict=True):
            yield {"measure": measure, "run": name, "value": each.get(measure)}


def _notes(runs: Sequence[Run], names: Sequence[str]) -> Iterable[str]:
    """What makes the runs less comparable than they look."""
    chances = [
        {(row["modality"], row["split"]): row["chance"] for row in run.metrics.get("recognition", ())}
        for run in runs
    ]
    for name, own in zip(names[1:], chances[1:], strict=True):
        splits = {key[1] for key in own.keys() & chances[0].keys() if own[key] != chances[0][key]}
        if splits:
            yield (
                f"{name} chose among another number of categories than {names[0]} on"
                f" {', '.join(sorted(splits)).replace('_', ' ')}: not the same task"
            )
    if len({run.model for run in runs}) > 1:
        yield "some runs are trained and some are not: " + ", ".join(
            f"{name} {run.model}" for name, run in zip(names, runs, strict=True)
        )
