"""ModelNet40: 12,311 CAD models in 40 classes; as OFF meshes or as the resampled clouds of PointNet++."""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.clouds import RECIPE, cloud_uri, prepare_clouds
from data.benchmarks.layout import (
    find_file,
    folders_in,
    keep_present,
    known_or_refuse,
    missing_note,
    note_label,
    read_lines,
    require_classes,
    require_count,
    require_file,
    require_folder,
    require_root,
    walk_classes,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.sample import Category, Sample, Split

_CLASSES = """
airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser flower_pot
glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio range_hood sink
sofa stairs stool table tent toilet tv_stand vase wardrobe xbox
"""
CLASSES = tuple(_CLASSES.split())
COUNTS: dict[Split, int] = {"test": 2_468, "train": 9_843}
_LISTS: dict[Split, str] = {"test": "modelnet40_test.txt", "train": "modelnet40_train.txt"}


def read_modelnet40(root: Path, wanted: Wanted) -> Imported:
    """Import either form, by its lists. Raises ManifestError for another layout or missing models."""
    splits: list[Split] = ["test", "train"] if wanted.train else ["test"]
    if find_file(root, *_LISTS.values()) is not None:
        return _resampled(root, splits, wanted)
    return _meshes(root, splits, wanted)


def _meshes(root: Path, splits: list[Split], wanted: Wanted) -> Imported:
    require_root(root)
    if not set(folders_in(root)) & set(CLASSES):  # raises, with a hint where the classes are
        require_folder(root, *CLASSES, what="the class folders")
    require_classes(root, folders_in(root), CLASSES, partial=wanted.partial)
    samples: list[Sample] = []
    for split in splits:
        pairs = list(walk_classes(root, CLASSES, {".off"}, lambda name, s=split: f"{name}/{s}"))  # type: ignore[misc]
        require_count(root, len(pairs), COUNTS[split], f"{split} meshes (*.off)", partial=wanted.partial)
        samples += [Sample(uri, "point", uri, split, _id(name)) for name, uri in pairs]
    return Imported(tuple(draw_val(samples)), _categories(samples, wanted.partial))


def _resampled(root: Path, splits: list[Split], wanted: Wanted) -> Imported:
    samples: list[Sample] = []
    notes: tuple[str, ...] = ()
    for split in splits:
        listed = require_file(root, _LISTS[split], what=f"the {split} list")
        uris: dict[str, str] = {}
        for line in read_lines(listed):  # "night_stand_0001" lies in the folder night_stand
            name = known_or_refuse(line.rpartition("_")[0], CLASSES, listed, "classes")
            note_label(uris, f"{name}/{line}.txt", name, listed)
        require_count(listed, len(uris), COUNTS[split], f"{split} clouds", partial=wanted.partial)
        kept = keep_present(root, list(uris), listed_in=listed, partial=wanted.partial, what="clouds")
        samples += [Sample(uri, "point", cloud_uri(uri), split, _id(uris[uri])) for uri in kept]
        notes += missing_note(len(uris), len(kept), f"{split} clouds")
    categories = _categories(samples, wanted.partial)
    return Imported(tuple(draw_val(samples)), categories, notes, prepare_clouds(root), RECIPE)


def _id(name: str) -> str:
    return name.replace("_", "-")


def _categories(samples: list[Sample], partial: bool) -> tuple[Category, ...]:
    used = {sample.category_id for sample in samples}
    return tuple(
        Category(_id(name), name.replace("_", " ")) for name in CLASSES if not partial or _id(name) in used
    )


MODELNET40 = Benchmark(
    name="modelnet40",
    title="ModelNet40",
    modality="point",
    classes=len(CLASSES),
    paper=Paper(77.67, 80.59, 90.64, 90.72, base="Point-Bind"),
    licence="academic use; the models were gathered from the web and belong to their authors",
    home="https://modelnet.cs.princeton.edu/",
    layout="airplane/{train,test}/*.off; or modelnet40_normal_resampled with airplane/airplane_0001.txt,"
    " modelnet40_train.txt and modelnet40_test.txt",
    split_rule="the official train and test; val = 10% drawn from each class of train",
    metric_rule="top-1 over all test models (not the mean over classes)",
    read=read_modelnet40,
)
