"""Places365-Standard: 365 scenes, tested on the 36,500 pictures of its val split (no test label is public).

Two official forms: "easyformat" with class folders, and flat val pictures with the lists of
`filelist_places365-standard.tar`.
"""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.layout import (
    find_file,
    folders_in,
    keep_present,
    missing_note,
    note_label,
    number,
    read_lines,
    require_classes,
    require_count,
    require_file,
    require_folder,
    walk_classes,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.errors import ManifestError
from data.paths import slug
from data.sample import Category, Sample

ENDINGS = {".jpg", ".jpeg", ".png"}
CLASSES, N_VAL, N_TRAIN = 365, 36_500, 1_803_460
_CATEGORIES = ("categories_places365.txt", "filelist_places365-standard/categories_places365.txt")
_VAL_LIST = ("places365_val.txt", "filelist_places365-standard/places365_val.txt")
_TRAIN_LIST = ("places365_train_standard.txt", "filelist_places365-standard/places365_train_standard.txt")
_VAL = ("val_256", "val_large", "val")
_TRAIN = ("data_256_standard", "data_large_standard", "data_256", "data_large", "train")


def read_places365(root: Path, wanted: Wanted) -> Imported:
    """Import Places365 in either form. Raises ManifestError for another layout or missing pictures."""
    if find_file(root, *_VAL_LIST) is None and (root / "val").is_dir() and folders_in(root / "val"):
        return _easyformat(root, wanted)
    return _listed(root, wanted)


def scene_name(label: str) -> str:
    """`/c/church/indoor` and `church-indoor` are called "indoor church": the qualifier goes first."""
    parts = label.strip("/").replace("-", "/").split("/")
    if len(parts[0]) == 1:  # the scene's first letter
        parts = parts[1:]
    return " ".join([*parts[1:], parts[0]]).replace("_", " ")


def _easyformat(root: Path, wanted: Wanted) -> Imported:
    named = find_file(root, *_CATEGORIES)
    found = folders_in(root / "val")
    if named is not None:
        known = [
            line.split(" ")[0][3:].replace("/", "-") for line in read_lines(named)
        ]  # "/c/church/indoor 91"
    elif len(found) == CLASSES or wanted.partial:
        known = found
    else:
        raise ManifestError(
            f"{root / 'val'}: expected {CLASSES} class folders; found {len(found)}; copy the rest, or use"
            " the incomplete copy with --partial, which marks the result"
        )
    samples: list[Sample] = []
    for split, expected in (("val", N_VAL), ("train", N_TRAIN)):
        if split == "train" and not wanted.train:
            break
        folder = require_folder(root, split, what=f"the {split} pictures")
        require_classes(folder, folders_in(folder), known, partial=wanted.partial)
        pairs = list(walk_classes(folder, known, ENDINGS, lambda name: name))
        require_count(folder, len(pairs), expected, f"{split} pictures", partial=wanted.partial)
        these = [
            Sample(f"{split}/{uri}", "image", f"{split}/{uri}", "test", slug(scene_name(name)))
            for name, uri in pairs
        ]
        samples += these if split == "val" else draw_val(_as_train(these))
    return Imported(tuple(samples), _categories([scene_name(name) for name in known], samples, wanted))


def _listed(root: Path, wanted: Wanted) -> Imported:
    if find_file(root, *_CATEGORIES) is None:  # raises, with a hint where the pictures should be
        require_folder(root, *_VAL, what="the val pictures")
    named = require_file(root, *_CATEGORIES, what="the names of the scenes")
    names: dict[int, str] = {}
    for line in read_lines(named):
        label, _, place = line.rpartition(" ")
        names[number(place, named, "a scene's number")] = scene_name(label)
    if len(names) != CLASSES and not wanted.partial:
        raise ManifestError(f"{named}: expected {CLASSES} scenes; found {len(names)}")
    val_list = require_file(root, *_VAL_LIST, what="the labels of the val pictures")
    samples, notes = _of_list(root, val_list, _VAL, N_VAL, names, wanted, "val pictures")
    if wanted.train:
        train_list = require_file(root, *_TRAIN_LIST, what="the list of the train pictures")
        train, more = _of_list(root, train_list, _TRAIN, N_TRAIN, names, wanted, "train pictures")
        samples, notes = samples + draw_val(_as_train(train)), notes + more
    return Imported(tuple(samples), _categories(list(names.values()), samples, wanted), notes)


def _of_list(
    root: Path,
    listed: Path,
    places: tuple[str, ...],
    expected: int,
    names: dict[int, str],
    wanted: Wanted,
    what: str,
) -> tuple[list[Sample], tuple[str, ...]]:
    folder = require_folder(root, *places, what=f"the {what}")
    place = folder.relative_to(root).as_posix()
    labels: dict[str, str] = {}
    for line in read_lines(listed):
        name, _, label = line.rpartition(" ")
        scene = names.get(number(label, listed, "a scene's number"))
        if scene is None:
            raise ManifestError(f"{listed}: expected numbers of {len(names)} scenes; found {line!r}")
        note_label(labels, f"{place}/{name.lstrip('/')}", slug(scene), listed)
    require_count(listed, len(labels), expected, what, partial=wanted.partial)
    kept = keep_present(root, list(labels), listed_in=listed, partial=wanted.partial, what=what)
    samples = [Sample(uri, "image", uri, "test", labels[uri]) for uri in kept]
    return samples, missing_note(len(labels), len(kept), what)


def _as_train(samples: list[Sample]) -> list[Sample]:
    return [Sample(s.sample_id, s.modality, s.uri, "train", s.category_id) for s in samples]


def _categories(names: list[str], samples: list[Sample], wanted: Wanted) -> tuple[Category, ...]:
    used = {sample.category_id for sample in samples}
    return tuple(Category(slug(name), name) for name in names if not wanted.partial or slug(name) in used)


PLACES365 = Benchmark(
    name="places365",
    title="Places365",
    modality="image",
    classes=CLASSES,
    paper=Paper(45.40, 53.84, 49.45, 56.99, base="ImageBind-huge"),
    licence="non-commercial research and education only; the pictures belong to their owners",
    home="http://places2.csail.mit.edu/download.html",
    layout="easyformat: val/airfield/*.jpg and train/airfield/*.jpg; or val_256/*.jpg (val_large),"
    " data_256_standard/a/airfield/*.jpg, places365_val.txt, places365_train_standard.txt and"
    " categories_places365.txt",
    split_rule="test = the 36,500 pictures of the official val; val = 10% drawn from each class of train",
    metric_rule="top-1 over all test pictures",
    read=read_places365,
)
