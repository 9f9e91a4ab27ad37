"""Importers read what is published, split it by its rules, and say in one line what they miss."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data.benchmarks import BENCHMARKS, Imported, Wanted, find_benchmark
from data.benchmarks.llvip import Box, background_box, read_annotation
from data.benchmarks.ncaltech101 import CLASSES as N_CALTECH_CLASSES
from data.benchmarks.ncaltech101 import class_name
from data.benchmarks.places365 import scene_name
from data.benchmarks.ucf101 import action_name
from data.errors import InputError, ManifestError, SampleError
from data.sample import Category
from data.wordnet import imagenet_synsets

Tree = Callable[[str], Path]
PART = Wanted(partial=True)
ALL = Wanted(train=True, partial=True)


def read(name: str, root: Path, wanted: Wanted = ALL) -> Imported:
    return find_benchmark(name).read(root, wanted)


def splits(imported: Imported) -> Counter[str]:
    return Counter(sample.split for sample in imported.samples)


# What the trees hold: test, train and val samples (10% of each category of train, rounded), categories.
HELD = {
    "imagenet-1k": (6, 12, 0, 3),
    "places365": (6, 9, 0, 3),
    "places365/lists": (6, 9, 0, 3),
    "modelnet40": (6, 12, 0, 3),
    "modelnet40/resampled": (6, 12, 0, 3),
    "shapenet": (6, 12, 0, 3),
    "shapenet/part16": (6, 9, 3, 3),
    "shapenet/core55": (3, 9, 3, 3),
    "llvip": (12, 16, 4, 2),
    "rgb-t": (4, 8, 0, 2),
    "msr-vtt": (6, 9, 3, 3),
    "ucf-101": (3, 9, 0, 3),
    "n-caltech101": (6, 21, 3, 3),
    "n-imagenet": (6, 12, 0, 3),
}


@pytest.mark.parametrize("form", HELD)
def test_a_tree_in_the_official_layout_is_read_whole(form: str, tree: Tree) -> None:
    """Every sample has its file, its split and its category; names are unique; the order is fixed."""
    name = form.split("/")[0]
    imported = read(name, tree(form))
    test, train, val, categories = HELD[form]
    assert splits(imported) == +Counter(test=test, train=train, val=val)
    assert len(imported.categories) == categories
    known = {category.category_id for category in imported.categories}
    assert {sample.category_id for sample in imported.samples} == known
    assert len({category.name.casefold() for category in imported.categories}) == categories
    assert {sample.modality for sample in imported.samples} == {BENCHMARKS[name].modality}
    if imported.prepare is None:
        assert all((tree(form) / sample.uri).is_file() for sample in imported.samples)
    assert read(name, tree(form)).samples == imported.samples
    only_test = read(name, tree(form), PART)
    assert splits(only_test) == Counter(test=test)


@pytest.mark.parametrize(("name", "folds", "clips"), [("esc-50", 5, 30), ("urbansound8k", 10, 60)])
def test_official_folds_are_test_once_each(name: str, folds: int, clips: int, tree: Tree) -> None:
    """The folds part the clips; train and val share no recording with test or with each other."""
    tested: list[str] = []
    for fold in range(1, folds + 1):
        samples = read(name, tree(name), Wanted(True, fold, partial=True)).samples
        by_split = {
            split: {s.object_id for s in samples if s.split == split} for split in ("test", "train", "val")
        }
        assert not by_split["test"] & by_split["train"]
        assert not by_split["val"] & by_split["train"]
        assert by_split["val"]
        tested += [sample.sample_id for sample in samples if sample.split == "test"]
    assert sorted(tested) == sorted({sample.sample_id for sample in read(name, tree(name), PART).samples})
    assert len(tested) == clips


def test_ucf_splits_are_those_of_the_lists(tree: Tree) -> None:
    """Split 2 tests group 2; the clips of a group are one object."""
    samples = read("ucf-101", tree("ucf-101"), Wanted(True, 2, partial=True)).samples
    tested = {sample.object_id for sample in samples if sample.split == "test"}
    assert tested == {"v_ApplyEyeMakeup_g02", "v_Biking_g02", "v_YoYo_g02"}


def test_msrvtt_has_two_splits(tree: Tree) -> None:
    """1k-A takes JSFusion's list, and its val is drawn from train."""
    samples = read("msr-vtt", tree("msr-vtt"), Wanted(True, variant="1k-a", partial=True)).samples
    tested = {Path(sample.uri).stem for sample in samples if sample.split == "test"}
    assert tested == {f"video{i}" for i in range(18) if i % 3 == 2}
    assert {c.name for c in read("msr-vtt", tree("msr-vtt")).categories} == {
        "music",
        "movies and comedy",
        "vehicles and autos",
    }


def test_kaggle_labels_serve_flat_pictures(tree: Tree) -> None:
    """LOC_val_solution.csv names the class of each val picture."""
    imported = read("imagenet-1k", tree("imagenet-1k/kaggle"), PART)
    assert [sample.category_id for sample in imported.samples] == ["n01440764", "n02105855", "n03126707"]


@pytest.mark.parametrize("compressed", [True, False])
def test_the_development_kit_labels_flat_pictures(
    compressed: bool, tmp_path: Path, media: dict[str, Callable[..., None]]
) -> None:
    """meta.mat, here as SciPy writes it, gives the numbers of the ground truth their WordNet ids."""
    order = np.random.default_rng(3).permutation(imagenet_synsets()).tolist()
    fields = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    synsets = np.array([(i + 1, wnid, "a word", "a gloss n12") for i, wnid in enumerate(order)], dtype=fields)
    kit = tmp_path / "ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    savemat(kit / "meta.mat", {"synsets": synsets[:, None]}, do_compression=compressed)
    media["lines"](kit / "ILSVRC2012_validation_ground_truth.txt", ["7", "1000", "1"])
    for i in range(1, 4):
        media["picture"](tmp_path / f"val/ILSVRC2012_val_{i:08d}.JPEG", i)
    samples = read("imagenet-1k", tmp_path, PART).samples
    assert [sample.category_id for sample in samples] == [order[6], order[999], order[0]]
    damaged = (kit / "meta.mat").read_bytes()[: 40_000 if not compressed else 900]
    (kit / "meta.mat").write_bytes(damaged)
    with pytest.raises(ManifestError, match=r"expected the 1,000 classes|damaged"):
        read("imagenet-1k", tmp_path, PART)


def test_published_lists_split_ncaltech(own_tree: Tree, media: dict[str, Callable[..., None]]) -> None:
    """Where E-CLIP's lists lie beside the classes, they are the split; else every fifth recording is test."""
    root = own_tree("n-caltech101")
    fifth = [sample.uri for sample in read("n-caltech101", root, PART).samples]
    assert fifth[:2] == ["Caltech101/Faces_easy/image_0005.bin", "Caltech101/Faces_easy/image_0010.bin"]
    row = "N_Caltech101/ant/image_{0:04d}.bin\tCaltech-101/ant/image_{0:04d}.jpg"
    media["lines"](root / "Caltech101_val.txt", [row.format(i) for i in (3, 7)])
    media["lines"](root / "Caltech101_train.txt", [row.format(i) for i in (1, 2)])
    imported = read("n-caltech101", root)
    assert [s.uri for s in imported.samples if s.split == "test"] == [
        "Caltech101/ant/image_0003.bin",
        "Caltech101/ant/image_0007.bin",
    ]
    assert "E-CLIP" in imported.notes[0]


def test_rgbt_reads_unibinds_lists(tree: Tree, tmp_path: Path) -> None:
    """The form that UniBind's README asks for is read as it is, and the doubt is told."""
    for split in ("train", "test"):
        shutil.copytree(tree("rgb-t") / split, tmp_path / f"{split}_dataset")
        entries = [{"data": f"{c}/{i}.jpg", "label": c} for c in ("person", "car") for i in range(2)]
        (tmp_path / f"{split}_data.json").write_text(json.dumps(entries))
    imported = read("rgb-t", tmp_path)
    assert splits(imported) == Counter(test=4, train=4)
    assert {sample.modality for sample in imported.samples} == {"thermal"}
    assert "could not be established" in BENCHMARKS["rgb-t"].doubt


def test_rgbts_own_folders_are_categories_as_everywhere(tmp_path: Path) -> None:
    """Its classes are the user's folders: C and C++ are two of them."""
    for split in ("train", "test"):
        for name in ("C", "C++"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "a.jpg").touch()
    imported = read("rgb-t", tmp_path)
    assert [category.name for category in imported.categories] == ["C", "C++"]
    assert len({sample.category_id for sample in imported.samples}) == 2
    assert any("'C' and 'C++'" in note for note in imported.notes)


def test_classes_of_one_id_are_refused() -> None:
    """Where the published lists were changed so that two slugs meet, no class is lost in silence."""
    with pytest.raises(ManifestError, match="'a b' and 'a-b' have one id, 'a-b'"):
        Imported((), (Category("a-b", "a b"), Category("a-b", "a-b")))


def test_category_names_are_words() -> None:
    """Labels become what people would say."""
    assert action_name("ApplyEyeMakeup") == "apply eye makeup"
    assert action_name("TaiChi") == "tai chi"
    assert scene_name("/c/church/indoor") == scene_name("church-indoor") == "indoor church"
    assert scene_name("/b/bus_station/indoor") == "indoor bus station"
    assert class_name("water_lilly") == "water lily"
    assert len({class_name(label) for label in N_CALTECH_CLASSES}) == 101


def test_background_boxes_meet_no_person(tree: Tree) -> None:
    """They have the person's size, lie in the picture, and are drawn alike every time."""
    size, persons = read_annotation(tree("llvip") / "Annotations/190002.xml")
    assert size == (160, 128)
    assert persons == [Box(11, 20, 35, 80), Box(90, 31, 112, 91)]
    for i in range(50):
        box = background_box(persons[0], persons, size, f"190002/{i}")
        assert box is not None
        assert (box.right - box.left, box.bottom - box.top) == (24, 60)
        assert 0 <= box.left < box.right <= 160
        assert 0 <= box.top < box.bottom <= 128
        inside = np.zeros((128, 160), bool)
        inside[box.top : box.bottom, box.left : box.right] = True
        assert not any(inside[p.top : p.bottom, p.left : p.right].any() for p in persons)
        assert box == background_box(persons[0], persons, size, f"190002/{i}")
    whole = Box(0, 0, 160, 128)
    assert background_box(persons[0], [whole], size, "x") is None


def test_crops_are_the_pictures_own_pixels(tree: Tree, tmp_path: Path) -> None:
    """A prepared crop equals Pillow's crop of the same box, and is not made again."""
    imported = read("llvip", tree("llvip"), PART)
    assert imported.prepare is not None
    sample = imported.samples[0]
    assert sample.uri == "test/person/190001-00.png"
    imported.prepare(sample, tmp_path)
    with Image.open(tree("llvip") / "infrared/test/190001.jpg") as picture:
        expected = np.asarray(picture.convert("L").crop((10, 20, 34, 80)))
    with Image.open(tmp_path / sample.uri) as crop:
        assert np.array_equal(np.asarray(crop), expected)
    before = (tmp_path / sample.uri).stat().st_mtime_ns
    imported.prepare(sample, tmp_path)
    assert (tmp_path / sample.uri).stat().st_mtime_ns == before


def test_boxes_of_another_picture_cut_nothing(own_tree: Tree, tmp_path: Path) -> None:
    """A picture that was scaled down has its persons elsewhere than its annotation says."""
    root = own_tree("llvip")
    path = root / "infrared/test/190001.jpg"
    with Image.open(path) as picture:
        picture.resize((80, 64)).save(path)
    imported = read("llvip", root, PART)
    assert imported.prepare is not None
    with pytest.raises(SampleError, match=r"80 × 64 pixels, its annotation says 160 × 128; fetch it again"):
        imported.prepare(imported.samples[0], tmp_path)


def test_clouds_keep_the_text_files_numbers(own_tree: Tree, tmp_path: Path) -> None:
    """x y z as written; a torn file is a SampleError that names it."""
    root = own_tree("modelnet40/resampled")
    imported = read("modelnet40", root, PART)
    assert imported.prepare is not None
    sample = imported.samples[0]
    imported.prepare(sample, tmp_path / "out")
    source = root / f"{sample.uri.removesuffix('.npy')}.txt"
    with source.open() as file:
        expected = [[float(x) for x in row[:3]] for row in csv.reader(file)]
    assert np.array_equal(np.load(tmp_path / "out" / sample.uri), np.array(expected, np.float32))
    source.write_text("0.1,0.2\n0.3,oops\n")
    with pytest.raises(SampleError, match=source.name):
        imported.prepare(sample, tmp_path / "elsewhere")


def _rename(root: Path, old: str, new: str) -> None:
    (root / old).rename(root / new)


def _remove(root: Path, *places: str) -> None:
    for place in places:
        path = root / place
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


# What was done to a tree, and what the one line must say.
DAMAGES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "imagenet without val": (
        "imagenet-1k",
        lambda r: _remove(r, "val"),
        ("expected the val pictures", "found 1 entries: train"),
    ),
    "imagenet renamed in case": (
        "imagenet-1k",
        lambda r: _rename(r, "val", "Val"),
        ("found Val: rename it",),
    ),
    "imagenet a level deeper": (
        "imagenet-1k",
        lambda r: [(r / "x").mkdir(), _rename(r, "val", "x/val"), _remove(r, "train")],
        ("one level deeper: pass --data", "/x"),
    ),
    "imagenet unknown class": (
        "imagenet-1k",
        lambda r: _rename(r, "val/n01440764", "val/n09999999"),
        ("expected the 1,000 class folders", "found 1 that is not among them: n09999999"),
    ),
    "imagenet class renamed in case": (
        "imagenet-1k",
        lambda r: _rename(r, "val/n01440764", "val/N01440764"),
        ("N01440764 (n01440764)", "rename to the spelling in brackets"),
    ),
    "imagenet flat without labels": (
        "imagenet-1k/kaggle",
        lambda r: _remove(r, "LOC_val_solution.csv"),
        ("found 3 pictures and no labels", "LOC_val_solution.csv"),
    ),
    "imagenet flat with packed labels": (
        "imagenet-1k/kaggle",
        lambda r: _rename(r, "LOC_val_solution.csv", "ILSVRC2012_devkit_t12.tar.gz"),
        ("found 3 pictures and no labels; ILSVRC2012_devkit_t12.tar.gz is still packed: unpack it",),
    ),
    "places without labels": (
        "places365/lists",
        lambda r: _remove(r, "categories_places365.txt"),
        ("expected the names of the scenes in the file categories_places365.txt",),
    ),
    "places with a bad number": (
        "places365/lists",
        lambda r: (r / "places365_val.txt").write_text("Places365_val_00000000.jpg x\n"),
        ("expected a whole number as a scene's number; found 'x'",),
    ),
    "modelnet unknown class": (
        "modelnet40",
        lambda r: _rename(r, "xbox", "playstation"),
        ("found 1 that is not among them: playstation",),
    ),
    "modelnet without a list": (
        "modelnet40/resampled",
        lambda r: _remove(r, "modelnet40_test.txt"),
        ("expected the test list in the file modelnet40_test.txt",),
    ),
    "shapenet without a list": (
        "shapenet",
        lambda r: _remove(r, "ShapeNet-55/test.txt"),
        ("expected the test list of ShapeNet-55 in the file ShapeNet-55/test.txt",),
    ),
    "shapenet part list cut": (
        "shapenet/part16",
        lambda r: (r / "train_test_split/shuffled_test_file_list.json").write_text('["shape_da'),
        ("shuffled_test_file_list.json: not valid JSON",),
    ),
    "esc without meta": (
        "esc-50",
        lambda r: _remove(r, "meta"),
        ("expected the list of the clips in the file meta/esc50.csv; found 1 entries: audio",),
    ),
    "esc with another table": (
        "esc-50",
        lambda r: (r / "meta/esc50.csv").write_text("file,label\na.wav,dog\n"),
        ("expected rows with the columns filename, fold, category, src_file", "file, label"),
    ),
    "urbansound audio renamed in case": (
        "urbansound8k",
        lambda r: _rename(r, "audio/fold3", "audio/Fold3"),
        ("6 are missing", "it exists as audio/Fold3/", "rename it"),
    ),
    "llvip without annotations": (
        "llvip",
        lambda r: _rename(r, "Annotations", "annotations"),
        ("expected the boxes of the persons in Annotations; found annotations: rename it",),
    ),
    "llvip with another xml": (
        "llvip",
        lambda r: (r / "Annotations/190001.xml").write_text("<annotation/>"),
        ("190001.xml: expected a VOC annotation",),
    ),
    "rgbt without test": ("rgb-t", lambda r: _remove(r, "test"), ("class folders of the test split",)),
    "msrvtt without its list": (
        "msr-vtt",
        lambda r: _remove(r, "MSRVTT_data.json"),
        ("expected the list of the videos in the file MSRVTT_data.json",),
    ),
    "msrvtt unknown category": (
        "msr-vtt",
        lambda r: (r / "MSRVTT_data.json").write_text(
            json.dumps({"videos": [{"video_id": "video0", "category": 20, "split": "test"}]})
        ),
        ("expected a category from 0 to 19; video0 has 20",),
    ),
    "ucf without lists": (
        "ucf-101",
        lambda r: _remove(r, "ucfTrainTestlist/testlist01.txt"),
        ("expected the test list of split 1", "testlist01.txt"),
    ),
    "ncaltech unknown class": (
        "n-caltech101",
        lambda r: _rename(r, "Caltech101/Faces_easy", "Caltech101/Faces"),
        ("found 1 that is not among them: Faces",),
    ),
    "esc with a row that contradicts another": (
        "esc-50",
        lambda r: _append(r / "meta/esc50.csv", "1-1001-A-0.wav,2,0,dog,False,1001,A\n"),
        ("audio/1-1001-A-0.wav is listed twice", "fetch the list again"),
    ),
    "places with two labels of a picture": (
        "places365/lists",
        lambda r: _append(r / "places365_val.txt", "Places365_val_00000000.jpg 2\n"),
        ("Places365_val_00000000.jpg is listed twice, as airfield and as outdoor-church",),
    ),
    "places easyformat a level deeper": (
        "places365",
        lambda r: [(r / "x").mkdir(), _rename(r, "val", "x/val"), _remove(r, "train")],
        ("expected the val pictures", "one level deeper: pass --data", "/x"),
    ),
    "modelnet a level deeper": (
        "modelnet40",
        lambda r: [
            (r / "x").mkdir(),
            *(_rename(r, each, f"x/{each}") for each in ("airplane", "night_stand", "xbox")),
        ],
        ("expected the class folders in airplane or bathtub", "one level deeper: pass --data", "/x"),
    ),
    "shapenet core a level deeper": (
        "shapenet/core55",
        lambda r: [(r / "x").mkdir(), _rename(r, "all.csv", "x/all.csv")],
        ("expected the lists of ShapeNet-55, ShapeNet-part or ShapeNetCore", "one level deeper"),
    ),
    "nimagenet without val": (
        "n-imagenet",
        lambda r: _remove(r, "extracted_val"),
        ("expected the val recordings in extracted_val; found 1 entries: extracted_train",),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_another_layout_is_one_line(damage: str, own_tree: Tree) -> None:
    """It says what was expected where and what was found, even where a part would do."""
    form, harm, told = DAMAGES[damage]
    root = own_tree(form)
    harm(root)
    with pytest.raises(ManifestError) as caught:
        read(form.split("/")[0], root, PART)
    message = str(caught.value)
    assert "\n" not in message
    assert str(root) in message
    for part in told:
        assert part in message, message


WHOLE = {
    "imagenet-1k": "expected 1,000 class folders; found 3",
    "imagenet-1k/kaggle": "expected 50,000 labels of val pictures; found 3",
    "places365": "expected 365 class folders; found 3",
    "places365/lists": "expected 365 scenes; found 3",
    "modelnet40/resampled": "expected 2,468 test clouds; found 6",
    "shapenet": "expected 10,518 test clouds; found 6",
    "shapenet/part16": "expected 2,874 test clouds; found 6",
    "shapenet/core55": "expected 50,000 models or more; found 15",
    "modelnet40": "expected 40 class folders; found 3, without bathtub, bed, bench and 34 more",
    "esc-50": "expected 2,000 clips; found 30",
    "urbansound8k": "expected 8,732 clips; found 60",
    "llvip": "expected 3,463 test pictures (*.jpg); found 3",
    "msr-vtt": "expected 2,990 test clips; found 6",
    "ucf-101": "expected 101 actions; found 3",
    "n-caltech101": "expected 101 class folders; found 3",
    "n-imagenet": "expected 1,000 class folders; found 3",
}


@pytest.mark.parametrize("form", WHOLE)
def test_a_part_of_a_benchmark_must_be_asked_for(form: str, tree: Tree) -> None:
    """Without --partial a half-copied benchmark is refused, with the counts and the way on."""
    with pytest.raises(ManifestError) as caught:
        read(form.split("/")[0], tree(form), Wanted())
    assert WHOLE[form] in str(caught.value)
    assert "\n" not in str(caught.value)


ARCHIVES = {
    "imagenet-1k": "ILSVRC2012_img_val.tar",
    "places365": "places365standard_easyformat.tar",
    "modelnet40": "ModelNet40.zip",
    "shapenet": "shapenetcore_partanno_segmentation_benchmark_v0_normal.zip",
    "esc-50": "ESC-50-master.zip",
    "urbansound8k": "UrbanSound8K.tar.gz",
    "llvip": "LLVIP.zip",
    "rgb-t": "rgbt.7z",
    "msr-vtt": "MSRVTT.zip",
    "ucf-101": "UCF101.rar",
    "n-caltech101": "Caltech101.zip",
    "n-imagenet": "extracted_val.tar",
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_archive_is_to_be_unpacked(name: str, tmp_path: Path) -> None:
    """An archive in place of the folder's content, or of the folder, is told as one."""
    archive = tmp_path / ARCHIVES[name]
    archive.touch()
    with pytest.raises(ManifestError, match=rf"{archive.name} is still packed: unpack it"):
        read(name, tmp_path)
    with pytest.raises(ManifestError, match=rf"{archive.name}: an archive; unpack it"):
        read(name, archive)


def test_archives_among_class_folders_are_to_be_unpacked(own_tree: Tree) -> None:
    """ImageNet's train archive unpacks into a thousand more."""
    root = own_tree("imagenet-1k")
    _remove(root, "val/n01440764")
    (root / "val/n01440764.tar").touch()
    with pytest.raises(ManifestError, match=r"1,000 class folders; found 2.*n01440764.tar is still packed"):
        read("imagenet-1k", root, Wanted())


def test_a_folder_too_deep_is_told(tree: Tree) -> None:
    """`--data imagenet/val` where the folder above is meant."""
    root = tree("imagenet-1k")
    with pytest.raises(ManifestError, match=rf"one level higher: pass --data {root}$"):
        read("imagenet-1k", root / "val")


def test_a_label_is_its_lines(tree: Tree, tmp_path: Path, media: dict[str, Callable[..., None]]) -> None:
    """An empty line in the development kit's labels would move all that follow: it is refused."""
    shutil.copytree(tree("imagenet-1k/kaggle") / "ILSVRC/Data/CLS-LOC/val", tmp_path / "val")
    media["lines"](tmp_path / "data/ILSVRC2012_validation_ground_truth.txt", ["7", "", "1"])
    with pytest.raises(ManifestError, match="expected a whole number as a class number; found ''"):
        read("imagenet-1k", tmp_path, PART)


def test_equal_rows_count_once(own_tree: Tree) -> None:
    """A list that was joined with itself gives every sample once."""
    root = own_tree("esc-50")
    rows = (root / "meta/esc50.csv").read_text().splitlines(keepends=True)
    (root / "meta/esc50.csv").write_text("".join([*rows, *rows[1:]]))
    assert len(read("esc-50", root, PART).samples) == 30
    with pytest.raises(ManifestError, match="expected 2,000 clips; found 30"):
        read("esc-50", root, Wanted())


def test_lists_of_windows_are_read_alike(own_tree: Tree) -> None:
    """A byte-order mark, carriage returns and trailing spaces change nothing."""
    for form in ("esc-50", "ucf-101", "places365/lists", "modelnet40/resampled", "shapenet"):
        root = own_tree(form)
        before = read(form.split("/")[0], root)
        for path in (path for ending in ("csv", "txt") for path in root.glob(f"*/*.{ending}")):
            if path.parent.name in {"meta", "ucfTrainTestlist", "ShapeNet-55"}:
                path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"  \r\n"))
        for path in root.glob("*.txt"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"  \r\n"))
        assert read(form.split("/")[0], root).samples == before.samples
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("form", "lost"),
    [
        ("shapenet", "shapenet_pc/02691156-test0.npy"),
        ("places365/lists", "val_256/Places365_val_00000003.jpg"),
        ("esc-50", "audio/1-1001-A-0.wav"),
        ("ucf-101", "UCF-101/YoYo/v_YoYo_g01_c01.avi"),
        ("msr-vtt", "videos/all/video4.mp4"),
        ("llvip", "Annotations/190002.xml"),
    ],
)
def test_a_listed_file_that_is_gone_is_named_and_left_out_on_request(
    form: str, lost: str, own_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --partial the others are read, and the note counts what is missing."""
    name, root = form.split("/")[0], own_tree(form)
    before = len(read(name, root, PART).samples)
    (root / lost).unlink()
    after = read(name, root, PART)
    assert len(after.samples) == before - (4 if name == "llvip" else 1)
    assert any("missing and were skipped" in note for note in after.notes)
    # The trees are too small for the other checks of a whole benchmark, which come first.
    for place in (BENCHMARKS[name].read.__module__, "data.benchmarks.sounds"):
        monkeypatch.setattr(f"{place}.require_count", lambda *_, **__: None, raising=False)
    monkeypatch.setattr(f"{BENCHMARKS[name].read.__module__}.CLASSES", 3, raising=False)
    with pytest.raises(ManifestError, match=r"is missing|are missing") as caught:
        read(name, root, Wanted())
    assert lost in str(caught.value)


def test_benchmarks_are_found_however_they_are_spelt() -> None:
    """Upper case and hyphens do not matter; a near miss is suggested."""
    assert find_benchmark("UCF101").name == "ucf-101"
    assert find_benchmark("N_ImageNet").name == "n-imagenet"
    with pytest.raises(InputError, match="did you mean 'modelnet40'"):
        find_benchmark("modelnet")
    for spelt, meant in (
        ("imagenet", "'imagenet-1k'"),
        ("imagnet", "'n-imagenet' or 'imagenet-1k'"),
        ("ncaltech", "'n-caltech101'"),
    ):
        with pytest.raises(InputError, match=rf"did you mean {meant}\?$"):
            find_benchmark(spelt)


def test_the_registry_holds_the_papers_table() -> None:
    """Twelve columns; the mean gain without training is the +6.27 that the table gives."""
    assert len(BENCHMARKS) == 12
    gains = [each.paper.zero_shot_unibind - each.paper.zero_shot_base for each in BENCHMARKS.values()]
    assert np.mean(gains) == pytest.approx(6.27, abs=0.01)
