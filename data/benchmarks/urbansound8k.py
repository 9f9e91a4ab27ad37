"""UrbanSound8K: 8,732 clips of up to four seconds, 10 classes, ten official folds (Salamon et al., 2014).

Its authors ask not to reshuffle and not to report a single fold: related clips lie in one fold, and the
folds differ in difficulty.
"""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.clip_lists import ClipList, read_clips
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted

CLIPS, CLASSES, FOLDS = 8732, 10, 10


def read_urbansound8k(root: Path, wanted: Wanted) -> Imported:
    """Import UrbanSound8K. Raises ManifestError for another layout or missing clips."""
    form = ClipList(
        path="metadata/UrbanSound8K.csv",
        columns=("slice_file_name", "fsID", "fold", "class"),
        category="class",
        recording=lambda row: f"freesound-{row['fsID']}",
        uri=lambda row: f"audio/fold{row['fold']}/{row['slice_file_name']}",
        clips=CLIPS,
        classes=CLASSES,
    )
    return read_clips(root, wanted, form)


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
