"""ImageNet-1k (ILSVRC 2012, CLS-LOC): 1,000 classes, tested on the 50,000 pictures of its val split.

The test labels were never published, so the field reports top-1 on val; here val is the split `test`. The val
pictures may be in class folders or in one flat folder; then labels come from Kaggle's `LOC_val_solution.csv`
or from the development kit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from data.benchmarks.layout import (
    files_in,
    find_file,
    folders_in,
    keep_present,
    known_or_refuse,
    missing_note,
    note_label,
    number,
    packed_hint,
    read_csv,
    require_classes,
    require_count,
    require_folder,
    walk_classes,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.errors import ManifestError
from data.modality import Modality
from data.sample import Category, Sample, Split
from data.tables.read import read_text
from data.wordnet import imagenet_synsets, synset_categories

ENDINGS = {".jpeg", ".jpg", ".png"}
N_VAL, N_TRAIN = 50_000, 1_281_167
_PREFIXES = ("", "ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/", "CLS-LOC/")
_SOLUTION = ("LOC_val_solution.csv", "ILSVRC/LOC_val_solution.csv")
_KIT = ("ILSVRC2012_devkit_t12/data/", "devkit/data/", "data/")
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def read_imagenet(root: Path, wanted: Wanted) -> Imported:
    """Import ImageNet-1k. Raises ManifestError for another layout, unknown classes or missing pictures."""
    synsets = imagenet_synsets()
    val = require_folder(root, *(f"{prefix}val" for prefix in _PREFIXES), what="the val pictures")
    place = val.relative_to(root).as_posix()
    notes: tuple[str, ...] = ()
    if folders_in(val):
        labelled = class_folders(root, place, synsets, N_VAL, "val pictures", ENDINGS, partial=wanted.partial)
    else:
        labelled, notes = _flat_val(root, val, place, synsets, partial=wanted.partial)
    samples = samples_of(labelled, "image", "test")
    if wanted.train:
        train = require_folder(root, *(f"{prefix}train" for prefix in _PREFIXES), what="the train pictures")
        place = train.relative_to(root).as_posix()
        pairs = class_folders(
            root, place, synsets, N_TRAIN, "train pictures", ENDINGS, partial=wanted.partial
        )
        samples += draw_val(samples_of(pairs, "image", "train"))
    return Imported(tuple(samples), shown_categories(samples, synsets, wanted.partial), notes)


def class_folders(
    root: Path,
    place: str,
    synsets: list[str],
    expected: int,
    what: str,
    endings: set[str],
    *,
    partial: bool,
) -> list[tuple[str, str]]:
    """(WordNet id, uri) of every file below the class folders of a split, checked against the benchmark."""
    split = root / place
    require_classes(split, folders_in(split), synsets, partial=partial)
    pairs = [
        (name, f"{place}/{uri}") for name, uri in walk_classes(split, synsets, endings, lambda synset: synset)
    ]
    require_count(split, len(pairs), expected, what, partial=partial)
    return pairs


def samples_of(labelled: Iterable[tuple[str, str]], modality: Modality, split: Split) -> list[Sample]:
    """The samples of (category id, uri) pairs."""
    return [Sample(uri, modality, uri, split, category) for category, uri in labelled]


def shown_categories(samples: Iterable[Sample], synsets: list[str], partial: bool) -> tuple[Category, ...]:
    """All classes; of a partial copy those with a sample. Names are the same in both cases."""
    used = {sample.category_id for sample in samples}
    return tuple(each for each in synset_categories(synsets) if not partial or each.category_id in used)


def _flat_val(
    root: Path, val: Path, place: str, synsets: list[str], *, partial: bool
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    solution = find_file(root, *_SOLUTION) or find_file(root.parent, _SOLUTION[0])
    kit = next((root / kit for kit in _KIT if (root / kit / _TRUTH).is_file()), None)
    if solution is not None:
        label_of = _kaggle_labels(solution, synsets)
        listed_in = solution
    elif kit is not None:
        label_of = _kit_labels(kit, synsets)
        listed_in = kit / _TRUTH
    else:
        packed = packed_hint(root).rstrip(";")
        raise ManifestError(
            f"{val}: expected 1,000 class folders, or the labels of flat pictures in {root / _SOLUTION[0]} or"
            f" {root / _KIT[0] / _TRUTH}; found {len(files_in(val, ENDINGS)):,} pictures and no labels"
            f"{';' * bool(packed)}{packed}"
        )
    require_count(listed_in, len(label_of), N_VAL, "labels of val pictures", partial=partial)
    uris = {f"{place}/{name}.JPEG": label for name, label in sorted(label_of.items())}
    kept = keep_present(root, list(uris), listed_in=listed_in, partial=partial, what="val pictures")
    return [(uris[uri], uri) for uri in kept], missing_note(len(uris), len(kept), "val pictures")


def _kaggle_labels(path: Path, synsets: list[str]) -> dict[str, str]:
    """Picture id -> WordNet id, of rows `ILSVRC2012_val_00048981,n03995372 85 1 499 272 …`."""
    known = set(synsets)
    labels: dict[str, str] = {}
    for row in read_csv(path, ("ImageId", "PredictionString")):
        label = known_or_refuse(row["PredictionString"].split(" ")[0], known, path, "synsets")
        note_label(labels, row["ImageId"], label, path)
    return labels


def _kit_labels(kit: Path, synsets: list[str]) -> dict[str, str]:
    """The same from the development kit: line n has the ILSVRC2012 class number (1 to 1,000) of picture n."""
    # Line numbers are picture numbers: skipping an empty line would shift all that follow.
    truth = read_text(kit / _TRUTH).strip().splitlines()
    numbers = [number(line.strip(), kit / _TRUTH, "a class number") for line in truth]
    wnids = _kit_synsets(kit / _META, synsets)
    for line, each in enumerate(numbers, start=1):
        if not 1 <= each <= len(wnids):
            raise ManifestError(
                f"{kit / _TRUTH}: line {line}: expected a number from 1 to 1,000; found {each}"
            )
    return {f"ILSVRC2012_val_{i:08d}": wnids[each - 1] for i, each in enumerate(numbers, start=1)}


def _kit_synsets(path: Path, synsets: list[str]) -> list[str]:
    """The WordNet ids in the order of their ILSVRC2012 numbers, from the kit's `meta.mat`.

    The file has MATLAB's level 5 format: a header of 128 bytes, then elements (type, size), here compressed.
    The cells of the structure are in the order of the numbers, so the ids are too; nothing else in the file
    looks like an id. Raises ManifestError unless they are exactly the thousand known ones.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: expected the development kit's list of classes; no such file")
    data, plain, at = path.read_bytes(), b"", 128
    while at + 8 <= len(data):
        kind, size = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (0, 4))
        part = data[at + 8 : at + 8 + size]
        try:
            plain += zlib.decompress(part) if kind == 15 else part
        except zlib.error as error:
            raise ManifestError(f"{path}: damaged ({error}); fetch the development kit again") from None
        at += 8 + size
    # Characters are one byte each, or two in older files.
    found = [each.replace(b"\0", b"").decode() for each in re.findall(rb"n\0?(?:[0-9]\0?){8}", plain)]
    first = list(dict.fromkeys(found))[: len(synsets)]
    if sorted(first) != sorted(synsets):
        raise ManifestError(
            f"{path}: expected the {len(synsets):,} classes of ILSVRC 2012; found"
            f" {len(set(first) & set(synsets)):,} of them; sort val into class folders instead"
        )
    return first


IMAGENET = Benchmark(
    name="imagenet-1k",
    title="ImageNet-1k",
    modality="image",
    classes=1000,
    paper=Paper(77.70, 83.25, 80.19, 86.94, base="ImageBind-huge"),
    licence="non-commercial research and education only; the pictures belong to their owners",
    home="https://image-net.org/challenges/LSVRC/2012/",
    layout="val/n01440764/*.JPEG and train/n01440764/*.JPEG; or val/*.JPEG with LOC_val_solution.csv or the"
    " development kit; also below ILSVRC/Data/CLS-LOC/",
    split_rule="test = the 50,000 pictures of the official val; val = 10% drawn from each class of train",
    metric_rule="top-1 over all test pictures",
    read=read_imagenet,
)
