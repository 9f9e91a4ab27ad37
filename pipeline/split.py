"""`unibind split`: assign the samples of a manifest to train, val and test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.errors import InputError
from data.folder.resplit import Resplit, resplit_manifest
from data.sample import Split
from data.show import aligned
from pipeline.project import TABLETOP, ProjectFile

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_MOST_LINES = 60


def split_project(project: ProjectFile, *, seed: int, force: bool) -> list[str]:
    """Draw splits and write them into the project's manifest; returns lines that say what was done."""
    if project.data.manifest == TABLETOP:
        raise InputError("the tabletop world has its own splits; set them under [tabletop]")
    done = resplit_manifest(
        project.manifest,
        categories=project.categories,
        modality=project.data.modality,
        root=project.data_root,
        seed=seed,
        force=force,
    )
    return resplit_lines(project.manifest, done)


def resplit_lines(path: Path, done: Resplit) -> list[str]:
    """Lines for the terminal: which files were kept together, and the splits of each category."""
    counts: dict[str, Counter[Split]] = {}
    for sample, split in zip(done.samples, done.splits, strict=True):
        counts.setdefault(sample.category_id or "(no category)", Counter())[split] += 1
    rows = [[name, *(str(each[split]) for split in _SPLITS)] for name, each in sorted(counts.items())]
    total = Counter(done.splits)
    rows.append(["all", *(str(total[split]) for split in _SPLITS)])
    lines = aligned([["", *_SPLITS], *rows])
    if len(lines) > _MOST_LINES:
        left = len(lines) - _MOST_LINES
        lines = [*lines[: _MOST_LINES - 1], f"... and {left} more categories", lines[-1]]
    untested = sum(not each["test"] for each in counts.values())
    lacking = [f"{untested} categories have no test sample, so they are not scored"] if untested else []
    return [*done.notes, *lines, *lacking, f"wrote {path}; the previous version is {done.backup}"]
