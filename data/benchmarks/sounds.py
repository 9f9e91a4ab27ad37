"""ESC-50 and UrbanSound8K: sounds listed clip by clip in a CSV file, with official folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.benchmarks.layout import (
    keep_present,
    missing_note,
    note_label,
    number,
    read_csv,
    require_count,
    require_file,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val, fold_splits
from data.paths import slug
from data.sample import Category, Sample

Row = dict[str, str]


@dataclass(frozen=True)
class _ClipList:
    """A CSV list of clips: its path, its columns (`fold` among them), and how to read a row."""

    path: str
    columns: tuple[str, ...]
    category: str  # the column of the class
    recording: Callable[[Row], str]  # the object id of a row: clips of one recording are in the same fold
    uri: Callable[[Row], str]
    clips: int
    classes: int


_ESC50_LIST = _ClipList(
    path="meta/esc50.csv",
    columns=("filename", "fold", "category", "src_file"),
    category="category",
    recording=lambda row: f"esc-{row['src_file']}",
    uri=lambda row: f"audio/{row['filename']}",
    clips=2000,
    classes=50,
)
_URBANSOUND8K_LIST = _ClipList(
    path="metadata/UrbanSound8K.csv",
    columns=("slice_file_name", "fsID", "fold", "class"),
    category="class",
    recording=lambda row: f"freesound-{row['fsID']}",
    uri=lambda row: f"audio/fold{row['fold']}/{row['slice_file_name']}",
    clips=8732,
    classes=10,
)


def read_esc50(root: Path, wanted: Wanted) -> Imported:
    """Import ESC-50. Raises ManifestError for another layout or missing clips."""
    return _read_clip_list(root, wanted, _ESC50_LIST)


def read_urbansound8k(root: Path, wanted: Wanted) -> Imported:
    """Import UrbanSound8K. Raises ManifestError for another layout or missing clips."""
    return _read_clip_list(root, wanted, _URBANSOUND8K_LIST)


def _read_clip_list(root: Path, wanted: Wanted, form: _ClipList) -> Imported:
    listed = require_file(root, form.path, what="the list of the clips")
    rows = read_csv(listed, form.columns)
    row_of: dict[str, Row] = {}
    for row in rows:
        note_label(row_of, form.uri(row), {name: row[name] for name in form.columns}, listed)
    require_count(listed, len(row_of), form.clips, "clips", partial=wanted.partial)
    names = {row[form.category].replace("_", " ") for row in rows}
    require_count(listed, len(names), form.classes, "classes", partial=wanted.partial)
    kept = keep_present(root, list(row_of), listed_in=listed, partial=wanted.partial, what="clips")
    pairs = [
        (_clip(uri, row_of[uri], form), number(row_of[uri]["fold"], listed, "a fold")) for uri in sorted(kept)
    ]
    samples = draw_val(fold_splits(pairs, wanted.fold))
    shown = samples if wanted.train else [sample for sample in samples if sample.split == "test"]
    categories = tuple(Category(slug(name), name) for name in sorted(names))
    return Imported(tuple(shown), categories, missing_note(len(row_of), len(kept), "clips"))


def _clip(uri: str, row: Row, form: _ClipList) -> Sample:
    return Sample(uri, "audio", uri, "test", slug(row[form.category]), object_id=form.recording(row))


ESC50 = Benchmark(
    name="esc-50",
    title="ESC-50",
    modality="audio",
    classes=50,
    paper=Paper(66.90, 71.70, 83.40, 84.01, base="ImageBind-huge"),
    licence="CC BY-NC 3.0; single clips have licences of their own",
    home="https://github.com/karolpiczak/ESC-50",
    layout="audio/*.wav and meta/esc50.csv",
    split_rule="five official folds: each is test once, the others are train (val = 10% of each class of"
    " train, whole recordings). Zero-shot without a fold: all 2,000 clips are test",
    metric_rule="top-1; over the folds their mean",
    read=read_esc50,
    folds=5,
)


URBANSOUND8K = Benchmark(
    name="urbansound8k",
    title="UrbanSound8K",
    modality="audio",
    classes=10,
    paper=Paper(41.73, 62.56, 71.60, 69.09, base="ImageBind-huge"),
    licence="CC BY-NC; single recordings have licences of their own",
    home="https://urbansounddataset.weebly.com/urbansound8k.html",
    layout="audio/fold1 … audio/fold10 and metadata/UrbanSound8K.csv",
    split_rule="ten official folds, never reshuffled: each is test once, the others are train (val = 10% of"
    " each class of train, whole recordings). Zero-shot without a fold: all 8,732 clips are test",
    metric_rule="top-1; over the folds their mean",
    read=read_urbansound8k,
    folds=10,
)
