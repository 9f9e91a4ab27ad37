"""ESC-50: 2,000 clips of five seconds in 50 classes and five folds (Piczak, ACM Multimedia 2015)."""

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

CLIPS, CLASSES, FOLDS = 2000, 50, 5


def read_esc50(root: Path, wanted: Wanted) -> Imported:
    """Import ESC-50. Raises ManifestError for another layout or missing clips."""
    listed = require_file(root, "meta/esc50.csv", what="the list of the clips")
    rows = read_csv(listed, ("filename", "fold", "category", "src_file"))
    require_count(listed, len(rows), CLIPS, "clips", partial=wanted.partial)
    names = {row["category"].replace("_", " ") for row in rows}
    require_count(listed, len(names), CLASSES, "classes", partial=wanted.partial)
    of = {f"audio/{row['filename']}": row for row in rows}
    kept = keep_present(root, list(of), listed_in=listed, partial=wanted.partial, what="clips")
    pairs = [
        (
            # Clips of one recording lie in one fold; the recording is the object that they show.
            Sample(
                uri, "audio", uri, "test", slug(of[uri]["category"]), object_id=f"esc-{of[uri]['src_file']}"
            ),
            number(of[uri]["fold"], listed, "a fold"),
        )
        for uri in sorted(kept)
    ]
    samples = draw_val(fold_splits(pairs, wanted.fold))
    shown = samples if wanted.train else [sample for sample in samples if sample.split == "test"]
    categories = tuple(Category(slug(name), name) for name in sorted(names))
    return Imported(tuple(shown), categories, told_missing(len(of), len(kept), "clips"))


ESC50 = Benchmark(
    name="esc-50",
    title="ESC-50",
    modality="audio",
    classes=CLASSES,
    paper=Paper(66.90, 71.70, 83.40, 84.01, base="ImageBind-huge"),
    licence="CC BY-NC 3.0; single clips have licences of their own",
    home="https://github.com/karolpiczak/ESC-50",
    layout="audio/*.wav and meta/esc50.csv",
    split_rule="five official folds: each is test once, the others are train (val = 10% of each class of"
    " train, whole recordings). Zero-shot without a fold: all 2,000 clips are test",
    metric_rule="top-1; over the folds their mean",
    read=read_esc50,
    folds=FOLDS,
)
