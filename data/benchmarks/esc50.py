"""ESC-50: 2,000 clips of five seconds in 50 classes and five folds (Piczak, ACM Multimedia 2015)."""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.clip_lists import ClipList, read_clips
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted

CLIPS, CLASSES, FOLDS = 2000, 50, 5


def read_esc50(root: Path, wanted: Wanted) -> Imported:
    """Import ESC-50. Raises ManifestError for another layout or missing clips."""
    form = ClipList(
        path="meta/esc50.csv",
        columns=("filename", "fold", "category", "src_file"),
        category="category",
        recording=lambda row: f"esc-{row['src_file']}",
        uri=lambda row: f"audio/{row['filename']}",
        clips=CLIPS,
        classes=CLASSES,
    )
    return read_clips(root, wanted, form)


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
