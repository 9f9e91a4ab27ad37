"""data.folder.dataset: anyone's folder of files as a dataset."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data.errors import ManifestError
from data.folder.dataset import FolderScan, survey_folder
from data.manifest.read import read_manifest, write_manifest
from data.sample import Category


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_sub_folders_are_categories(tmp_path: Path) -> None:
    """A category is named as its folder, at any depth below; endings tell the modality."""
    fill(tmp_path, "golden_retriever/a.JPG", "golden_retriever/more/b.png", "Bells/c.wav")
    scan = survey_folder(tmp_path)
    samples, categories = scan.samples, scan.categories
    assert categories == (Category("bells", "Bells"), Category("golden-retriever", "golden retriever"))
    assert {(s.uri, s.modality, s.category_id) for s in samples} == {
        ("golden_retriever/a.JPG", "image", "golden-retriever"),
        ("golden_retriever/more/b.png", "image", "golden-retriever"),
        ("Bells/c.wav", "audio", "bells"),
    }


def test_the_split_is_60_20_20_in_each_category_and_stays(tmp_path: Path) -> None:
    """Ten files give 6, 2 and 2; one gives a test sample; the same folder gives the same split."""
    fill(tmp_path, *(f"many/{n}.png" for n in range(10)), "many/a.wav", "many/b.wav", "one/a.png")
    samples = survey_folder(tmp_path).samples
    counts = Counter((s.category_id, s.modality, s.split) for s in samples)
    assert counts == {
        ("many", "image", "train"): 6,
        ("many", "image", "val"): 2,
        ("many", "image", "test"): 2,
        ("many", "audio", "train"): 1,
        ("many", "audio", "test"): 1,
        ("one", "image", "test"): 1,
    }
    assert survey_folder(tmp_path).samples == samples


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    """Hidden files, unknown endings, links, and files beside the folders: each with its reason."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"x")
    photos = tmp_path / "photos"
    fill(
        photos,
        "dog/a.png",
        "dog/.DS_Store",
        "dog/notes.doc",
        "dog/a\\b.png",
        " birds/c.png",
        ".git/x.png",
        "top.png",
    )
    (photos / "dog" / "link.png").symlink_to(outside)
    (photos / "dog" / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "linked").symlink_to(tmp_path)
    scan = survey_folder(photos)
    assert [sample.uri for sample in scan.samples] == ["dog/a.png"]
    assert dict(scan.skipped) == {
        "dog/.DS_Store": "hidden",
        "dog/notes.doc": "unknown ending '.doc'",
        "dog/a\\b.png": "a name that a manifest cannot hold",
        " birds/c.png": "a name that a manifest cannot hold",
        ".git/": "a hidden folder",
        "top.png": "beside the sub-folders",
        "dog/link.png": "a link that leads outside the folder",
        "dog/gone.png": "a link to a missing file",
        "linked/": "a link to a folder",
    }


def test_a_flat_folder_has_no_categories(tmp_path: Path) -> None:
    """Files without sub-folders are samples without a category; a told modality takes every file."""
    fill(tmp_path, "a.png", "b.png", "c.dat")
    scan = survey_folder(tmp_path)
    assert [sample.category_id for sample in scan.samples] == [None, None]
    assert scan.categories == ()
    assert {s.modality for s in survey_folder(tmp_path, modality="thermal").samples} == {"thermal"}


def test_folders_that_give_nothing(tmp_path: Path) -> None:
    """A missing folder and one without samples are refused."""
    with pytest.raises(ManifestError, match="no such folder"):
        survey_folder(tmp_path / "none")
    with pytest.raises(ManifestError, match="no sample in it"):
        survey_folder(tmp_path)


def test_folders_of_signs_are_categories_of_their_own(tmp_path: Path) -> None:
    """C, C++ and C#, + and -, and two emoji are seven categories, and read back from the manifest as such."""
    names = ("C", "C++", "C#", "+", "-", "😀", "😃", "a|b", "ice_cream", "ice cream")
    fill(tmp_path / "ph", *(f"{name}/x.png" for name in names))
    scan = survey_folder(tmp_path / "ph")
    assert {category.name for category in scan.categories} == set(names)
    assert len({sample.category_id for sample in scan.samples}) == len(names)
    assert "'C', 'C#' and 'C++'; 'ice cream' and 'ice_cream'" in "\n".join(scan.notes)
    write_manifest(tmp_path / "m.parquet", scan.samples, categories=scan.categories)
    manifest = read_manifest(tmp_path / "m.parquet", root=tmp_path / "ph")
    assert (manifest.samples, manifest.categories) == (scan.samples, scan.categories)


def test_a_folder_that_shows_no_name_is_refused(tmp_path: Path) -> None:
    """A name of invisible characters alone can be no category; an underscore can."""
    fill(tmp_path, "_/a.png", "b/b.png")
    assert [category.name for category in survey_folder(tmp_path).categories] == ["b", "_"]
    fill(tmp_path, "_\u200b/c.png")  # not a name of nothing but U+200B, which no manifest may hold
    names = [category.name for category in survey_folder(tmp_path).categories]
    assert sorted(names) == ["_", "_\u200b", "b"]
    fill(tmp_path, "\u200b/c.png")
    with pytest.raises(ManifestError, match=r"the folder '\\u200b' has no visible character"):
        survey_folder(tmp_path)


def test_folders_of_one_name_are_one_category(tmp_path: Path) -> None:
    """Dog and dog are one, which is said; their files are split as those of one category."""
    fill(tmp_path, "Dog/a.png", "dog/b.png", "cat/c.png")
    scan = survey_folder(tmp_path)
    assert scan.categories == (Category("cat", "cat"), Category("dog", "dog"))
    assert sorted(s.split for s in scan.samples if s.category_id == "dog") == ["test", "train"]
    assert "1 category in several spellings: 'Dog' and 'dog' are read as one category 'dog'" in scan.notes


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("names", [("ice_cream", "dog", "犬"), ("a|b", "C++", "C", "+", "nan")])
def test_a_scan_survives_the_manifest(tmp_path: Path, ending: str, names: tuple[str, ...]) -> None:
    """What was scanned is what the written manifest reads back, categories' names included."""
    fill(tmp_path, *(f"{name}/{file}" for name in names for file in ("b.wav", 'c "d", e.png', "f.png")))
    scan = survey_folder(tmp_path)
    samples, categories = scan.samples, scan.categories
    write_manifest(tmp_path / f"manifest.{ending}", samples, categories=categories)
    manifest = read_manifest(tmp_path / f"manifest.{ending}")
    if "C++" in names:
        assert (manifest.samples, manifest.categories) == (samples, categories)
        return
    assert (manifest.samples, manifest.categories, manifest.notes) == (samples, categories, ())


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_odd_names_of_files_survive_the_manifest_or_are_left_out(tmp_path: Path, ending: str) -> None:
    """One name that a manifest refuses would make all of it unreadable: DEL was one."""
    names = [
        "a\x7f.png",
        "b\x85.png",
        "c\u2028d.png",
        "e\x9f.png",
        "f\ufffd.png",
        "=x.png",
        "#a.png",
        "g, h.png",
    ]
    fill(tmp_path, *(f"dog/{name}" for name in [*names, "\xa0n.png", "n\xa0.png", "k\x01.png", "ok.png"]))
    scan = survey_folder(tmp_path)
    assert {uri for uri, _ in scan.skipped} == {"dog/a\x7f.png", "dog/k\x01.png"}
    write_manifest(tmp_path / f"manifest.{ending}", scan.samples, categories=scan.categories)
    assert read_manifest(tmp_path / f"manifest.{ending}").samples == scan.samples


def told(scan: FolderScan) -> str:
    return "\n".join(scan.notes)


def splits_of(scan: FolderScan) -> dict[str, str]:
    return {sample.uri: sample.split for sample in scan.samples}


def test_split_folders_are_splits(tmp_path: Path) -> None:
    """train/, val/ and test/ above the categories are splits in any case and spelling, and that is said."""
    fill(tmp_path, "Train/dog/a.png", "Train/cat/b.png", "validation/dog/c.png", "TESTING/cat/d.png")
    scan = survey_folder(tmp_path)
    assert [category.name for category in scan.categories] == ["cat", "dog"]
    assert splits_of(scan) == {
        "Train/dog/a.png": "train",
        "Train/cat/b.png": "train",
        "validation/dog/c.png": "val",
        "TESTING/cat/d.png": "test",
    }
    assert "SPLIT/CATEGORY/; split by folder: TESTING → test, Train → train, validation → val" in told(scan)
    assert "splits by folder: 2 train, 1 val, 1 test" in told(scan)


def test_splits_below_the_categories(tmp_path: Path) -> None:
    """dog/train/ is as good; one file beside such folders, and they are but a part of the category."""
    fill(tmp_path, "dog/train/a.png", "dog/test/b.png", "cat/train/c.png")
    scan = survey_folder(tmp_path)
    assert [category.name for category in scan.categories] == ["cat", "dog"]
    assert set(splits_of(scan).values()) == {"train", "test"}
    assert "no val folder" in told(scan)
    fill(tmp_path, "cat/d.png")
    assert "splits drawn" in told(survey_folder(tmp_path))
    assert "test, train are not read as splits" in told(survey_folder(tmp_path))


def test_a_category_called_train(tmp_path: Path) -> None:
    """Beside a plane, a train is a vehicle."""
    fill(tmp_path, "train/a.png", "plane/b.png", "test/c.png")
    scan = survey_folder(tmp_path)
    assert [category.name for category in scan.categories] == ["plane", "test", "train"]
    assert "test, train are not read as splits, because other folders or files lie beside them" in told(scan)


def test_without_test_folder_val_is_scored(tmp_path: Path) -> None:
    """ImageNet's train/ and val/: val is what is scored; with train/ alone the splits are drawn."""
    fill(tmp_path, *(f"a/train/dog/{n}.png" for n in range(5)), "a/val/dog/x.png")
    scan = survey_folder(tmp_path / "a")
    assert splits_of(scan)["val/dog/x.png"] == "test"
    assert "no test folder: the val samples are used as test" in told(scan)
    (tmp_path / "a/val/dog/x.png").unlink()
    scan = survey_folder(tmp_path / "a")
    assert set(splits_of(scan).values()) == {"train", "val", "test"}
    assert "only a train folder: splits drawn" in told(scan)


def test_a_test_folder_without_categories(tmp_path: Path) -> None:
    """As competitions give it: the test files have no category, and that is said."""
    fill(tmp_path, "train/dog/a.png", "train/cat/b.png", "test/c.png", "test/d.png")
    scan = survey_folder(tmp_path)
    assert {s.category_id for s in scan.samples if s.split == "test"} == {None}
    assert "2 of 4 files have no category: they are not scored" in told(scan)


def test_a_folder_around_it_all(tmp_path: Path) -> None:
    """archive/train/dog: what an archive was unpacked to is no category."""
    fill(tmp_path, "archive/train/dog/a.png", "archive/test/cat/b.png")
    scan = survey_folder(tmp_path)
    assert [category.name for category in scan.categories] == ["cat", "dog"]
    assert splits_of(scan)["archive/test/cat/b.png"] == "test"


def test_modality_folders(tmp_path: Path) -> None:
    """photos/, sounds/ and thermal/ above or below categories are modalities; thermal/x.png is thermal."""
    fill(tmp_path / "above", "photos/dog/a.png", "sounds/dog/a.wav", "thermal/dog/b.png")
    fill(tmp_path / "below", "dog/photos/a.png", "dog/sounds/a.wav", "dog/thermal/b.png")
    for folder in ("above", "below"):
        scan = survey_folder(tmp_path / folder)
        assert [category.name for category in scan.categories] == ["dog"]
        assert sorted(sample.modality for sample in scan.samples) == ["audio", "image", "thermal"]
        assert "1 files are thermal, not image: by the name of their folder" in told(scan)
        (tied,) = {sample.object_id for sample in scan.samples} - {None}
        assert [s.modality for s in scan.samples if s.object_id == tied] == ["image", "audio"]


def test_pictures_of_texts_are_no_texts(tmp_path: Path) -> None:
    """A folder `text` full of pictures is a category."""
    fill(tmp_path, "text/a.png", "image/b.png")
    assert [category.name for category in survey_folder(tmp_path).categories] == ["image", "text"]


def test_links_that_lead_out(tmp_path: Path) -> None:
    """A folder of links says how many, and what to do; followed, they are samples below a common folder."""
    fill(tmp_path, "blobs/1", "blobs/2")
    for number, name in enumerate(("dog/a.png", "cat/b.png"), start=1):
        link = tmp_path / "snap" / name
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / "blobs" / str(number))
    (tmp_path / "snap" / "cat" / "up").symlink_to(tmp_path / "snap")
    with pytest.raises(ManifestError, match=r"2 × a link that leads outside the folder.*--follow-links"):
        survey_folder(tmp_path / "snap")
    scan = survey_folder(tmp_path / "snap", follow_links=True)
    assert scan.root == tmp_path
    assert [(s.sample_id, s.uri) for s in scan.samples] == [
        ("cat/b.png", "snap/cat/b.png"),
        ("dog/a.png", "snap/dog/a.png"),
    ]
    assert dict(scan.skipped) == {"cat/up/": "a link to a folder above it"}
    write_manifest(tmp_path / "m.csv", scan.samples, categories=scan.categories)
    assert read_manifest(tmp_path / "m.csv", root=scan.root).samples == scan.samples


def test_links_to_what_is_not_there(tmp_path: Path) -> None:
    """Contents that were never fetched (git-annex, DVC) are told from those that lie elsewhere."""
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "a.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"1 × a link to a missing file.*git annex get"):
        survey_folder(tmp_path)


def test_unknown_endings_say_how_to_go_on(tmp_path: Path) -> None:
    """No sample at all: by reason, the known endings, and the option that overrules them."""
    fill(tmp_path, "dog/a.qoi", "dog/b.qoi")
    with pytest.raises(ManifestError, match=r"2 × unknown ending '.qoi'.*--modality"):
        survey_folder(tmp_path)
    assert len(survey_folder(tmp_path, modality="image").samples) == 2


def test_the_first_word_of_a_name_as_category(tmp_path: Path) -> None:
    """A flat folder says that it has no categories and how its names begin; by_name takes these words."""
    fill(tmp_path, "dog_1.png", "dog 2.png", "Cat-1.png", "cat12.png", "7.png")
    scan = survey_folder(tmp_path)
    assert scan.categories == ()
    assert "no categories" in told(scan)
    assert "begin with 2 words (cat 2, dog 2): `--by-name`" in told(scan)
    scan = survey_folder(tmp_path, by_name=True)
    assert {s.uri: s.category_id for s in scan.samples} == {
        "dog_1.png": "dog",
        "dog 2.png": "dog",
        "Cat-1.png": "cat",
        "cat12.png": "cat",
        "7.png": None,
    }


@pytest.mark.parametrize("names", ["{}_{}.png", "{}/train/{}_{}.png"])
def test_the_numbers_of_a_category_count_its_objects(names: str, tmp_path: Path) -> None:
    """`dog_0` … `dog_4` and `cat_0` … of a flat folder are ten objects: they are not all in one split."""
    by_name = "/" not in names
    named = [
        names.format(*([word] if by_name else [word, word]), n) for word in ("dog", "cat") for n in range(5)
    ]
    fill(tmp_path, *named, *(() if by_name else ("dog/test/rex.png", "cat/test/tom.png")))
    scan = survey_folder(tmp_path, by_name=by_name)
    assert {sample.object_id for sample in scan.samples} == {None}
    assert "count different objects" in told(scan)
    assert len({sample.split for sample in scan.samples}) > 1


def test_textures_are_no_photos(tmp_path: Path) -> None:
    """A picture that a material or a scene names is a part of the mesh, as is a buffer."""
    fill(tmp_path, "chair/a.obj", "chair/wood.png", "chair/my tex/b c.jpg", "chair/photo.png", "chair/s.bin")
    (tmp_path / "chair/a.mtl").write_text("newmtl x\nmap_Kd -s 1 1 1 wood.png\nmap_Bump my tex\\b c.jpg\n")
    (tmp_path / "chair/s.gltf").write_text('{"buffers": [{"uri": "s.bin"}], "images": [{"uri": "data:x"}]}')
    scan = survey_folder(tmp_path)
    uris = {sample.uri for sample in scan.samples}
    assert {"chair/a.obj", "chair/photo.png"} <= uris
    assert not uris & {"chair/wood.png", "chair/my tex/b c.jpg", "chair/s.bin"}
    assert dict(scan.skipped)["chair/wood.png"] == "a texture, buffer or material of a mesh"


def test_one_category_is_said_to_be_one(tmp_path: Path) -> None:
    """There is nothing to tell it from."""
    fill(tmp_path, "dog/a.png", "dog/b.png")
    assert "one category only (dog)" in told(survey_folder(tmp_path))


def test_folders_within_categories_are_said(tmp_path: Path) -> None:
    """Of animals/dog and animals/cat, animals is the category: in a taxonomy that may not be meant."""
    fill(tmp_path, "animals/dog/a.png", "animals/cat/b.png", "plants/rose/c.png", "plants/d.png")
    scan = survey_folder(tmp_path)
    assert {category.name for category in scan.categories} == {"animals", "plants"}
    assert "3 files lie in a sub-folder of a category, such as animals/cat/b.png of 'animals'" in told(scan)
    assert "sub-folder of a category" not in told(survey_folder(tmp_path / "animals"))
    assert "sub-folder of a category" not in told(survey_folder(tmp_path, by_name=True))


def test_splits_in_names_are_said(tmp_path: Path) -> None:
    """With --by-name the first word is the category, also where it is `train` and `test`."""
    fill(tmp_path, "train_dog_1.png", "test_dog_2.png", "cat_3.png")
    assert "test, train at the beginning of the names are read as categories" in told(
        survey_folder(tmp_path, by_name=True)
    )
    assert "at the beginning of the names" not in told(survey_folder(tmp_path))


def test_masks_beside_pictures_are_said(tmp_path: Path) -> None:
    """A segmentation mask is no second dog; a mask of which no picture is there is a thing."""
    fill(tmp_path, "dog/1.jpg", "dog/1_mask.png", "cat/2.png", "cat/2-Depth.png", "cat/opera_mask.png")
    scan = survey_folder(tmp_path)
    assert "2 files are named like a mask, a depth map or labels of another" in told(scan)
    assert len(scan.samples) == 5
    (tmp_path / "dog/1.jpg").unlink()
    (tmp_path / "cat/2.png").unlink()
    assert "named like a mask" not in told(survey_folder(tmp_path))


def test_things_in_two_given_splits_are_said(tmp_path: Path) -> None:
    """Splits by folder are kept; that a thing is in train and in test is said."""
    fill(tmp_path, "train/dog/rex.png", "train/dog/max.png", "test/dog/ada.png")
    (tmp_path / "test/dog/rex2.png").write_bytes((tmp_path / "train/dog/rex.png").read_bytes())
    scan = survey_folder(tmp_path)
    assert "1 objects are in train and in another split" in told(scan)
    assert splits_of(scan)["test/dog/rex2.png"] == "test"


def test_papers_beside_samples_are_no_texts(tmp_path: Path) -> None:
    """Licences, readmes and lists of classes lie in every download; a note about a dog is a text."""
    fill(
        tmp_path,
        *(f"dog/{name}.txt" for name in ("README", "BLENDSWAP_LICENSE", "classes", "a licensed dog")),
    )
    scan = survey_folder(tmp_path)
    assert [sample.uri for sample in scan.samples] == ["dog/a licensed dog.txt"]
    assert set(dict(scan.skipped).values()) == {"a licence, readme or list, by its name"}


def test_results_of_a_project_are_no_samples(tmp_path: Path) -> None:
    """Where a project stands in its own folder, what it made is left out; a category called runs is not."""
    fill(tmp_path, "dog/a.png", "runs/b.png")
    assert len(survey_folder(tmp_path).samples) == 2
    fill(tmp_path, "runs/photos/kb/x", "runs/photos/space.png")
    scan = survey_folder(tmp_path)
    assert [sample.uri for sample in scan.samples] == ["dog/a.png"]
    assert dict(scan.skipped)["runs/"] == "the results of a project"
