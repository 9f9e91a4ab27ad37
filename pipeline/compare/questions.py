"""Match the recognition tasks of several runs, and say which answers cannot be compared.

A run that used no label (zero-shot, with centers chosen without samples) has one task, `unseen`: every sample
of every split is classified among all categories. A run that used labels, such as a trained one, has `seen`,
`unseen` and, among all categories, `seen_among_all` and `unseen_among_all` (trainer/evaluate/tasks.py). The
tasks `seen` and those among all have the same samples and candidates as the one task of the former, so the
runs are paired there sample by sample. Where a run has categories without a train sample, `seen` has fewer
candidates; a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

NAMED_KEYS = ["split", "modality", "sample_id"]
_ONE_TASK, _TASKS = "unseen", ("seen", "seen_among_all", "unseen_among_all")


@dataclass(frozen=True)
class Run:
    """The files of an evaluated run; `model` is the one whose recognition is compared."""

    name: str
    folder: Path
    model: str
    metrics: Mapping[str, Any]
    named: pa.Table  # of that model, by the LLM centers
    ranks: pa.Table


def same_tasks(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[Run], list[str]]:
    """The runs with equal names for equal tasks, and a note on what was renamed.

    If only some runs used labels, the one task of the others is renamed to the tasks of these with the same
    samples and candidates. Otherwise nothing changes.
    """
    without = [_splits(run) == {_ONE_TASK} for run in runs]
    if all(without) or not any(without):
        return list(runs), []
    changed = [_renamed(run) if one else run for run, one in zip(runs, without, strict=True)]
    unlabelled = ", ".join(name for name, one in zip(names, without, strict=True) if one)
    others = ", ".join(name for name, one in zip(names, without, strict=True) if not one)
    return changed, [
        f"{unlabelled} used no label, so it was measured on samples of every split, among all categories;"
        f" compared are the samples that {others} measured too"
    ]


def _splits(run: Run) -> set[str]:
    return set(pc.unique(run.named["split"]).to_pylist())


def _renamed(run: Run) -> Run:
    """A run whose one task is copied to each task that others may have; the join keeps the common ones."""
    place = run.named.schema.get_field_index("split")
    field = run.named.schema.field(place)
    tables = [
        run.named.set_column(place, field, pa.repeat(pa.scalar(split, pa.string()), len(run.named)))
        for split in _TASKS
    ]
    rows = [
        {**row, "split": split}
        for split in _TASKS
        for row in run.metrics.get("recognition", ())
        if row["split"] == _ONE_TASK
    ]
    return replace(run, named=pa.concat_tables(tables), metrics={**run.metrics, "recognition": rows})


def nothing_in_common(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Why runs have no answer in common, in one line."""
    empty = [name for name, run in zip(names, runs, strict=True) if len(run.named) + len(run.ranks) == 0]
    if empty:
        return f"{', '.join(empty)}: no labelled sample was measured, so there is nothing to compare"
    ids = [set(pc.unique(run.named["sample_id"]).to_pylist()) for run in runs]
    parts = [
        f"{name} has {len(own):,} samples" + (f", such as {min(own)!r}" if own else "")
        for name, own in zip(names, ids, strict=True)
    ]
    if not set.intersection(*ids):
        return f"no sample in common (by sample_id), so the runs are of different data: {'; '.join(parts)}"
    splits = "; ".join(
        f"{name} has {', '.join(sorted(_tasks_of(run)))}" for name, run in zip(names, runs, strict=True)
    )
    return f"no answer in common: the samples were measured in other tasks or modalities: {splits}"


def _tasks_of(run: Run) -> set[str]:
    pairs = run.named.group_by(["modality", "split"]).aggregate([]).to_pylist()
    return {f"{pair['modality']} {pair['split'].replace('_', ' ')}" for pair in pairs}


def relabelled(runs: Sequence[Run], names: Sequence[str]) -> Iterable[str]:
    """Notes on samples whose category in a run differs from that in the first run."""
    own = _labels(runs[0])
    for name, run in zip(names[1:], runs[1:], strict=True):
        both = own.join(_labels(run), keys=["modality", "sample_id"], right_suffix="_2", join_type="inner")
        apart = both.filter(pc.not_equal(both["category_id"], both["category_id_2"]))
        if len(apart):
            first = apart.sort_by("sample_id").slice(0, 1).to_pylist()[0]
            yield (
                f"{len(apart):,} samples have another category in {name} than in {names[0]}, such as"
                f" {first['sample_id']!r} ({first['category_id_2']!r}, not {first['category_id']!r}):"
                " the right answers differ there"
            )


def _labels(run: Run) -> pa.Table:
    """The category of each sample: one row per modality and sample."""
    rows = run.named.select(["modality", "sample_id", "category_id"])
    return rows.group_by(["modality", "sample_id", "category_id"]).aggregate([])
