"""ShapeNet: three of its forms, recognised by their lists; the paper does not state which one it used.

- `shapenet55`: the clouds and lists of Point-BERT, which UniBind's own loader (ULIP's) reads;
- `part16`: ShapeNet-part, 16 classes, with the official train, val and test lists;
- `core55`: ShapeNetCore's meshes with the official `all.csv` (train, val, test).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from data.benchmarks.clouds import RECIPE, cloud_uri, prepare_clouds
from data.benchmarks.layout import (
    find_file,
    keep_present,
    known_or_refuse,
    missing_note,
    note_label,
    read_csv,
    read_json,
    read_lines,
    require_count,
    require_file,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.errors import ManifestError
from data.paths import slug
from data.sample import Category, Sample, Split
from data.wordnet import synset_categories

# The synsets of ShapeNetCore (its numbers are WordNet 3.0 noun offsets); the names come from WordNet.
_SYNSETS = """
02691156 02747177 02773838 02801938 02808440 02818832 02828884 02843684 02871439 02876657 02880940
02924116 02933112 02942699 02946921 02954340 02958343 02992529 03001627 03046257 03085013 03207941
03211117 03261776 03325088 03337140 03467517 03513137 03593526 03624134 03636649 03642806 03691459
03710193 03759954 03761084 03790512 03797390 03928116 03938244 03948459 03991062 04004475 04074963
04090263 04099429 04225987 04256520 04330267 04379243 04401088 04460130 04468005 04530566 04554684
"""
SYNSETS = tuple(_SYNSETS.split())
VARIANTS = ("shapenet55", "part16", "core55")
_CORE_MESHES = ("models/model_normalized.obj", "model.obj")  # of versions 2 and 1
_POINT_BERT: dict[Split, str] = {"test": "test.txt", "train": "train.txt"}
_PART: dict[str, Split] = {"test": "test", "train": "train", "val": "val"}
# The number of models in the lists, to notice truncated ones; for `all.csv` a lower bound, since its versions
# differ (51,162 in the last one of the SHREC tracks).
_POINT_BERT_COUNTS: dict[Split, int] = {"test": 10_518, "train": 41_952}
_PART_COUNTS: dict[Split, int] = {"test": 2_874, "train": 12_137, "val": 1_870}
_CORE_AT_LEAST = 50_000


def read_shapenet(root: Path, wanted: Wanted) -> Imported:
    """Import one form: `wanted.variant`, else the one whose lists exist. Raises ManifestError."""
    readers = {"shapenet55": _point_bert, "part16": _part, "core55": _core}
    return readers[wanted.variant or _variant_by_lists(root)](root, wanted)


def _variant_by_lists(root: Path) -> str:
    if not any((root / place).is_dir() for place in ("ShapeNet-55", "shapenet_pc")):
        places = ("ShapeNet-55/test.txt", "synsetoffset2category.txt", "all.csv")
        require_file(root, *places, what="the lists of ShapeNet-55, ShapeNet-part or ShapeNetCore")
    if find_file(root, "synsetoffset2category.txt") is not None:
        return "part16"
    return "core55" if find_file(root, "all.csv") is not None else "shapenet55"


def _point_bert(root: Path, wanted: Wanted) -> Imported:
    samples: list[Sample] = []
    notes: tuple[str, ...] = ()
    for split, name in _POINT_BERT.items():
        if split == "train" and not wanted.train:
            continue
        listed = require_file(root, f"ShapeNet-55/{name}", what=f"the {split} list of ShapeNet-55")
        uris: dict[str, str] = {}
        for line in read_lines(listed):  # "02691156-1a04e3eab45ca15dd86060f189eb133.npy"
            synset = known_or_refuse(line.partition("-")[0], SYNSETS, listed, "ShapeNet synsets")
            note_label(uris, f"shapenet_pc/{line}", synset, listed)
        require_count(listed, len(uris), _POINT_BERT_COUNTS[split], f"{split} clouds", partial=wanted.partial)
        kept = keep_present(root, list(uris), listed_in=listed, partial=wanted.partial, what="clouds")
        samples += [Sample(uri, "point", uri, split, f"n{uris[uri]}") for uri in kept]
        notes += missing_note(len(uris), len(kept), f"{split} clouds")
    return Imported(tuple(draw_val(samples)), _wordnet(samples, wanted.partial), notes)


def _core(root: Path, wanted: Wanted) -> Imported:
    listed = require_file(root, "all.csv", what="the official split of ShapeNetCore")
    uris: dict[str, tuple[str, Split]] = {}
    form = next((mesh for mesh in _CORE_MESHES if next(root.glob(f"0*/*/{mesh}"), None)), _CORE_MESHES[0])
    rows = read_csv(listed, ("synsetId", "modelId", "split"))
    require_count(listed, len(rows), _CORE_AT_LEAST, "models or more", partial=wanted.partial)
    for row in rows:
        synset = known_or_refuse(row["synsetId"].zfill(8), SYNSETS, listed, "ShapeNet synsets")
        split = _PART[known_or_refuse(row["split"], _PART, listed, "splits")]
        if split == "test" or wanted.train:
            note_label(uris, f"{synset}/{row['modelId']}/{form}", (synset, split), listed)
    kept = keep_present(root, list(uris), listed_in=listed, partial=wanted.partial, what="meshes")
    samples = [Sample(uri, "point", uri, uris[uri][1], f"n{uris[uri][0]}") for uri in kept]
    notes = missing_note(len(uris), len(kept), "meshes")
    return Imported(tuple(samples), _wordnet(samples, wanted.partial), notes)


def _part(root: Path, wanted: Wanted) -> Imported:
    named = require_file(root, "synsetoffset2category.txt", what="the names of the 16 classes")
    names = {}
    for line in read_lines(named):  # "Airplane	02691156"
        name, _, synset = line.replace("\t", " ").rpartition(" ")
        names[synset] = name.strip().lower()
    samples: list[Sample] = []
    notes: tuple[str, ...] = ()
    for part, split in _PART.items():
        if split != "test" and not wanted.train:
            continue
        listed = require_file(
            root, f"train_test_split/shuffled_{part}_file_list.json", what=f"the {part} list of ShapeNet-part"
        )
        entries = read_json(listed)
        if not isinstance(entries, list) or not entries:
            raise ManifestError(f"{listed}: expected a list of paths; found {type(entries).__name__}")
        uris: dict[str, str] = {}
        for entry in entries:  # "shape_data/02691156/1a04e3eab45ca15dd86060f189eb133"
            synset, _, model = str(entry).removeprefix("shape_data/").partition("/")
            name = names[known_or_refuse(synset, names, listed, "classes")]
            note_label(uris, f"{synset}/{model}.txt", name, listed)
        require_count(listed, len(uris), _PART_COUNTS[split], f"{part} clouds", partial=wanted.partial)
        kept = keep_present(root, list(uris), listed_in=listed, partial=wanted.partial, what="clouds")
        samples += [Sample(uri, "point", cloud_uri(uri), split, slug(uris[uri])) for uri in kept]
        notes += missing_note(len(uris), len(kept), f"{part} clouds")
    used = {sample.category_id for sample in samples}
    categories = tuple(
        Category(slug(name), name) for name in names.values() if not wanted.partial or slug(name) in used
    )
    return Imported(tuple(samples), categories, notes, prepare_clouds(root), RECIPE)


def _wordnet(samples: Iterable[Sample], partial: bool) -> tuple[Category, ...]:
    used = {sample.category_id for sample in samples}
    categories = synset_categories([f"n{synset}" for synset in SYNSETS])
    return tuple(each for each in categories if not partial or each.category_id in used)


SHAPENET = Benchmark(
    name="shapenet",
    title="ShapeNet",
    modality="point",
    classes=len(SYNSETS),
    paper=Paper(98.85, 98.96, 99.09, 99.59, base="Point-Bind"),
    licence="non-commercial research and education only, after registration",
    home="https://shapenet.org/",
    layout="shapenet_pc/02691156-*.npy with ShapeNet-55/{train,test}.txt; or ShapeNet-part (02691156/*.txt,"
    " synsetoffset2category.txt, train_test_split/*.json); or ShapeNetCore (02691156/*/models/"
    "model_normalized.obj) with all.csv",
    split_rule="the lists of the form that is there: train and test of Point-BERT's ShapeNet-55 (val = 10%"
    " drawn from each class of train), or the official train, val and test. The paper does not say which it"
    " used",
    metric_rule="top-1 over all test models, among the 55 classes (16 for ShapeNet-part)",
    read=read_shapenet,
    variants=VARIANTS,
)
