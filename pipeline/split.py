"""`unibind split`: train, val and test for a manifest that has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.errors import InputError
from data.folder.resplit import Resplit, resplit_manifest
from data.sample import Split
from pipeline.project import TABLETOP, ProjectFile

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_MOST_LINES = 60


def split_project(project: ProjectFile, *, seed: int, force: bool) -> list[str]:
    """Draw the splits of a project's manifest and write them into it; returns what was done, in lines."""
    if project.data.manifest == TABLETOP:
        raise InputError("the tabletop world has its own splits; its settings stand under [tabletop]")
    done = resplit_manifest(
        project.manifest,
        categories=project.categories,
        modality=project.data.modality,
        root=project.data_root,
        seed=seed,
        force=force,
    )
    return told(project.manifest, done)


def told(path: Path, done: Resplit) -> list[str]:
    """What was drawn, in words: how files were tied, and a table of categories."""
    counts: dict[str, Counter[Split]] = {}
    for sample, split in zip(done.samples, done.splits, strict=True):
        counts.setdefault(sample.category_id or "(no category)", Counter())[split] += 1
    rows = [[name, *(str(each[split]) for split in _SPLITS)] for name, each in sorted(counts.items())]
    total = Counter(done.splits)
    rows.append(["all", *(str(total[split]) for split in _SPLITS)])
    lines = _table([["", *_SPLITS], *rows])
    if len(lines) > _MOST_LINES:
        left = len(lines) - _MOST_LINES
        lines = [*lines[: _MOST_LINES - 1], f"... and {left} more categories", lines[-1]]
    untested = sum(not each["test"] for each in counts.values())
    lacking = [f"{untested} categories have no test sample: nothing of them is scored"] if untested else []
    return [*done.notes, *lines, *lacking, f"wrote {path}; as it was it is {done.backup}"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
