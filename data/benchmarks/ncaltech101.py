"""N-Caltech101: Caltech-101's pictures recorded by a moving event camera (Orchard et al., 2015).

It has 100 object classes and a background class, and no official split. E-CLIP, the basis of the paper's
event numbers, publishes split lists (github.com/jiazhou-garland/EventBind): they are used if
`Caltech101_train.txt` and `Caltech101_val.txt` are beside the class folders. Else every fifth recording of
each class, by name, is test: E-CLIP's rule of one in five, in an order that does not depend on the file
system.
"""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.layout import (
    files_in,
    find_file,
    folders_in,
    keep_present,
    missing_note,
    read_lines,
    require_classes,
    require_count,
    require_file,
    require_folder,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.errors import ManifestError
from data.paths import slug
from data.sample import Category, Sample, Split

_CLASSES = """
BACKGROUND_Google Faces_easy Leopards Motorbikes accordion airplanes anchor ant barrel bass beaver
binocular bonsai brain brontosaurus buddha butterfly camera cannon car_side ceiling_fan cellphone chair
chandelier cougar_body cougar_face crab crayfish crocodile crocodile_head cup dalmatian dollar_bill
dolphin dragonfly electric_guitar elephant emu euphonium ewer ferry flamingo flamingo_head garfield
gerenuk gramophone grand_piano hawksbill headphone hedgehog helicopter ibis inline_skate joshua_tree
kangaroo ketch lamp laptop llama lobster lotus mandolin mayfly menorah metronome minaret nautilus octopus
okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster saxophone schooner scissors
scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign strawberry sunflower tick
trilobite umbrella watch water_lilly wheelchair wild_cat windsor_chair wrench yin_yang
"""
CLASSES = tuple(_CLASSES.split())
RECORDINGS = 8_709
TEST_AT_LEAST = 1_600  # E-CLIP's test list has some 1,700 entries: a shorter one is truncated
EVERY = 5  # one recording in five is test
_CLEANED = {
    "BACKGROUND_Google": "background clutter",
    "Faces_easy": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "water_lilly": "water lily",
}
_LISTS: dict[Split, str] = {"test": "Caltech101_val.txt", "train": "Caltech101_train.txt"}


def read_ncaltech101(root: Path, wanted: Wanted) -> Imported:
    """Import N-Caltech101. Raises ManifestError for another layout or missing recordings."""
    folder = require_folder(root, "Caltech101", "N-Caltech101", "N_Caltech101", ".", what="the class folders")
    if folder == root and not set(folders_in(root)) & set(CLASSES):
        require_folder(root, "Caltech101", "N-Caltech101", "N_Caltech101", what="the class folders")
    require_classes(folder, folders_in(folder), CLASSES, partial=wanted.partial)
    place = "" if folder == root else f"{folder.name}/"
    listed = find_file(root, *_LISTS.values())
    notes: tuple[str, ...] = ("the split is E-CLIP's published lists",)
    if listed is not None:
        samples, lost = _published(root, place, wanted)
        notes += lost
    else:
        samples = _every_fifth(root, place)
        require_count(folder, len(samples), RECORDINGS, "recordings (*.bin)", partial=wanted.partial)
        notes = (f"no official split: every {EVERY}th recording of each class, by name, is test",)
    samples = [sample for sample in draw_val(samples) if wanted.train or sample.split == "test"]
    used = {sample.category_id for sample in samples}
    categories = tuple(
        Category(_id(label), class_name(label))
        for label in CLASSES
        if not wanted.partial or _id(label) in used
    )
    return Imported(tuple(samples), categories, notes)


def class_name(label: str) -> str:
    """`Faces_easy` is called "face", `sea_horse` "sea horse"."""
    return _CLEANED.get(label, label.replace("_", " "))


def _id(label: str) -> str:
    return slug(class_name(label))


def _every_fifth(root: Path, place: str) -> list[Sample]:
    samples = []
    for label in CLASSES:
        folder = root / f"{place}{label}"
        for i, file in enumerate(files_in(folder, {".bin"}) if folder.is_dir() else (), start=1):
            uri = f"{place}{label}/{file}"
            samples.append(Sample(uri, "event", uri, "train" if i % EVERY else "test", _id(label)))
    return samples


def _published(root: Path, place: str, wanted: Wanted) -> tuple[list[Sample], tuple[str, ...]]:
    samples: list[Sample] = []
    notes: tuple[str, ...] = ()
    for split, name in _LISTS.items():
        listed = require_file(root, name, what=f"E-CLIP's {split} list")
        uris = {}
        for line in read_lines(listed):  # "N_Caltech101/ant/image_0001.bin	Caltech-101/ant/image_0001.jpg"
            parts = line.split("\t")[0].replace("\\", "/").split("/")
            if len(parts) < 2 or parts[-2] not in CLASSES:
                raise ManifestError(
                    f"{listed}: expected paths such as ant/image_0001.bin; found {line[:80]!r}"
                )
            uris[f"{place}{parts[-2]}/{parts[-1]}"] = parts[-2]
        if split == "test":
            require_count(listed, len(uris), TEST_AT_LEAST, "test recordings or more", partial=wanted.partial)
        kept = keep_present(root, list(uris), listed_in=listed, partial=wanted.partial, what="recordings")
        samples += [Sample(uri, "event", uri, split, _id(uris[uri])) for uri in sorted(kept)]
        notes += missing_note(len(uris), len(kept), f"{split} recordings")
    return samples, notes


N_CALTECH101 = Benchmark(
    name="n-caltech101",
    title="N-Caltech101",
    modality="event",
    classes=len(CLASSES),
    paper=Paper(50.98, 59.26, 77.83, 78.05, base="E-CLIP"),
    licence="CC BY 4.0",
    home="https://www.garrickorchard.com/datasets/n-caltech101",
    layout="Caltech101/accordion/image_0001.bin …; optionally E-CLIP's Caltech101_train.txt and"
    " Caltech101_val.txt",
    split_rule="no official one: E-CLIP's lists where they are there, else every fifth recording of each"
    " class by name is test; val = 10% drawn from each class of train",
    metric_rule="top-1 over all test recordings, the background class included as in E-CLIP",
    read=read_ncaltech101,
)
