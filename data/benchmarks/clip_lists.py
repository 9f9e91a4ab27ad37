"""Sounds listed clip by clip in one CSV file, with their folds: ESC-50 and UrbanSound8K."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.benchmarks.layout import (
    keep_present,
    note_label,
    number,
    read_csv,
    require_count,
    require_file,
    told_missing,
)
from data.benchmarks.record import Imported, Wanted
from data.benchmarks.splits import draw_val, fold_splits
from data.paths import slug
from data.sample import Category, Sample


@dataclass(frozen=True)
class ClipList:
    """Where a list lies and what its columns mean; the column `fold` is the fold."""

    path: str
    columns: tuple[str, ...]
    category: str  # the column of the class
    recording: Callable[[dict[str, str]], str]  # the object of a row: clips of one recording lie in one fold
    uri: Callable[[dict[str, str]], str]
    clips: int
    classes: int


def read_clips(root: Path, wanted: Wanted, form: ClipList) -> Imported:
    """Import the clips of a list. Raises ManifestError for another layout or missing clips."""
    listed = require_file(root, form.path, what="the list of the clips")
    rows = read_csv(listed, form.columns)
    of: dict[str, dict[str, str]] = {}
    for row in rows:
        note_label(of, form.uri(row), {name: row[name] for name in form.columns}, listed)
    require_count(listed, len(of), form.clips, "clips", partial=wanted.partial)
    names = {row[form.category].replace("_", " ") for row in rows}
    require_count(listed, len(names), form.classes, "classes", partial=wanted.partial)
    kept = keep_present(root, list(of), listed_in=listed, partial=wanted.partial, what="clips")
    pairs = [
        (
            Sample(
                uri, "audio", uri, "test", slug(of[uri][form.category]), object_id=form.recording(of[uri])
            ),
            number(of[uri]["fold"], listed, "a fold"),
        )
        for uri in sorted(kept)
    ]
    samples = draw_val(fold_splits(pairs, wanted.fold))
    shown = samples if wanted.train else [sample for sample in samples if sample.split == "test"]
    categories = tuple(Category(slug(name), name) for name in sorted(names))
    return Imported(tuple(shown), categories, told_missing(len(of), len(kept), "clips"))
