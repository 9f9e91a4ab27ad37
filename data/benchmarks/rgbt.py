"""RGB-T: thermal pictures in class folders, or in UniBind's own lists.

Which data set the paper means by "RGB-T" could not be established: neither its page nor its code names the
source, the classes or the split. This importer reads the form that UniBind's README requires of any data set
(`train_data.json`, `eval_data.json`, `test_data.json`), or plain class folders. A result on another data set
is not a reproduction of the paper's.
"""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.layout import (
    files_in,
    folders_in,
    require_classes,
    require_count,
    require_folder,
    walk_classes,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.errors import ManifestError
from data.folder.dataset import folder_categories
from data.manifest.read import read_manifest
from data.manifest.unibind_lists import find_lists
from data.sample import Sample, Split

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
_SPLITS: tuple[Split, ...] = ("test", "train", "val")
_NOT_ESTABLISHED = "which data set the paper calls RGB-T could not be established"


def read_rgbt(root: Path, wanted: Wanted) -> Imported:
    """Import thermal pictures from UniBind's lists or from class folders. Raises ManifestError."""
    imported = _listed(root, wanted) if root.is_dir() and find_lists(root) else _folders(root, wanted)
    samples = imported.samples
    if not any(sample.split == "val" for sample in samples):
        samples = tuple(draw_val(samples))
    return Imported(samples, imported.categories, imported.notes)


def _listed(root: Path, wanted: Wanted) -> Imported:
    manifest = read_manifest(root, modality="thermal")
    samples = tuple(sample for sample in manifest.samples if wanted.train or sample.split == "test")
    if not any(sample.split == "test" for sample in samples):
        raise ManifestError(f"{root}: expected test samples in test_data.json; found no such list")
    return Imported(samples, manifest.categories, manifest.notes)


def _folders(root: Path, wanted: Wanted) -> Imported:
    test = require_folder(root, "test", what="the class folders of the test split, or test_data.json")
    known = folders_in(test)
    categories, name_notes = folder_categories(known)
    samples: list[Sample] = []
    for split in _SPLITS:
        if split == "val" and not (root / "val").is_dir():
            continue
        if split == "test" or wanted.train:
            folder = require_folder(root, split, what=f"the class folders of the {split} split")
            require_classes(folder, folders_in(folder), known, partial=wanted.partial)
            pairs = list(walk_classes(folder, known, ENDINGS, lambda name: name))
            require_count(folder, len(pairs), 1, "thermal pictures", partial=wanted.partial)
            samples += [
                Sample(f"{split}/{uri}", "thermal", f"{split}/{uri}", split, categories[name].category_id)
                for name, uri in pairs
            ]
    loose = len(files_in(test, ENDINGS))
    notes = (f"{loose:,} pictures beside the class folders were skipped",) if loose else ()
    return Imported(
        tuple(samples), tuple(dict.fromkeys(categories[name] for name in known)), (*name_notes, *notes)
    )


RGB_T = Benchmark(
    name="rgb-t",
    title="RGB-T",
    modality="thermal",
    classes=None,
    paper=Paper(54.71, 56.20, 60.55, 60.71, base="ImageBind-huge"),
    licence="that of the data set you bring",
    home="not established: the paper and its code do not name the source",
    layout="test/person/*.jpg … and train/person/*.jpg … (val/ if there is one); or UniBind's test_data.json,"
    " train_data.json and eval_data.json with their folders",
    split_rule="the folders or lists as they are; val = 10% drawn from each class of train if there is no"
    " val",
    metric_rule="top-1 over all test pictures",
    read=read_rgbt,
    doubt=_NOT_ESTABLISHED,
)
