"""UrbanSound8K: 8,732 clips of up to four seconds, 10 classes, ten official folds (Salamon et al., 2014).

Its authors ask not to reshuffle and not to report a single fold: related clips lie in one fold, and the
folds differ in difficulty.
"""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.layout import (
    keep_present,
    number,
    read_csv,
    require_count,
    require_file,
    told_missing,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val, fold_splits
from data.paths import slug
from data.sample import Category, Sample

CLIPS, CLASSES, FOLDS = 8732, 10, 10


def read_urbansound8k(root: Path, wanted: Wanted) -> Imported:
    """Import UrbanSound8K. Raises ManifestError for another layout or missing clips."""
    listed = require_file(root, "metadata/UrbanSound8K.csv", what="the list of the clips")
    rows = read_csv(listed, ("slice_file_name", "fsID", "fold", "class"))
    require_count(listed, len(rows), CLIPS, "clips", partial=wanted.partial)
    names = {row["class"].replace("_", " ") for row in rows}
    require_count(listed, len(names), CLASSES, "classes", partial=wanted.partial)
    of = {f"audio/fold{row['fold']}/{row['slice_file_name']}": row for row in rows}
    kept = keep_present(root, list(of), listed_in=listed, partial=wanted.partial, what="clips")
    pairs = [
        (
            Sample(
                uri, "audio", uri, "test", slug(of[uri]["class"]), object_id=f"freesound-{of[uri]['fsID']}"
            ),
            number(of[uri]["fold"], listed, "a fold"),
        )
        for uri in sorted(kept)
    ]
    samples = draw_val(fold_splits(pairs, wanted.fold))
    shown = samples if wanted.train else [sample for sample in samples if sample.split == "test"]
    categories = tuple(Category(slug(name), name) for name in sorted(names))
    return Imported(tuple(shown), categories, told_missing(len(of), len(kept), "clips"))


URBANSOUND8K = Benchmark(
    name="urbansound8k",
    title="UrbanSound8K",
    modality="audio",
    classes=CLASSES,
    paper=Paper(41.73, 62.56, 71.60, 69.09, base="ImageBind-huge"),
    licence="CC BY-NC; single recordings have licences of their own",
    home="https://urbansounddataset.weebly.com/urbansound8k.html",
    layout="audio/fold1 … audio/fold10 and metadata/UrbanSound8K.csv",
    split_rule="ten official folds, never reshuffled: each is test once, the others are train (val = 10% of"
    " each class of train, whole recordings). Zero-shot without a fold: all 8,732 clips are test",
    metric_rule="top-1; over the folds their mean",
    read=read_urbansound8k,
    folds=FOLDS,
)
