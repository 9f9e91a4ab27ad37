"""N-ImageNet: ImageNet-1k's pictures, recorded from a screen by an event camera (Kim et al., ICCV 2021)."""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.imagenet import N_TRAIN, N_VAL, class_folders, samples_of, shown_categories
from data.benchmarks.layout import require_folder
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.wordnet import imagenet_synsets

ENDINGS = {".npz"}


def read_nimagenet(root: Path, wanted: Wanted) -> Imported:
    """Import N-ImageNet. Raises ManifestError for another layout, unknown classes or missing recordings."""
    synsets = imagenet_synsets()
    folder = require_folder(root, "extracted_val", what="the val recordings")
    pairs = class_folders(
        root, folder.name, synsets, N_VAL, "val recordings", ENDINGS, partial=wanted.partial
    )
    samples = samples_of(pairs, "event", "test")
    if wanted.train:
        folder = require_folder(root, "extracted_train", what="the train recordings")
        pairs = class_folders(
            root, folder.name, synsets, N_TRAIN, "train recordings", ENDINGS, partial=wanted.partial
        )
        samples += draw_val(samples_of(pairs, "event", "train"))
    return Imported(tuple(samples), shown_categories(samples, synsets, wanted.partial))


N_IMAGENET = Benchmark(
    name="n-imagenet",
    title="N-ImageNet",
    modality="event",
    classes=1000,
    paper=Paper(10.79, 13.85, 23.69, 24.48, base="E-CLIP"),
    licence="given on request, for research; ImageNet's terms hold for what was recorded",
    home="https://github.com/82magnolia/n_imagenet",
    layout="extracted_val/n01440764/*.npz and extracted_train/n01440764/*.npz, each with `event_data`",
    split_rule="test = the 50,000 recordings of the official val; val = 10% drawn from each class of train",
    metric_rule="top-1 over all test recordings",
    read=read_nimagenet,
)
