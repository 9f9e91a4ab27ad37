"""data.manifest: three formats, every default said, every mistake told at once."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ManifestError
from data.manifest.categories import read_categories
from data.manifest.read import read_manifest, write_manifest
from data.sample import Category, Sample

DOG = Sample("s1", "image", "a.png", "train", "dog", "o1", "a brown dog")
CAT = Sample("s2", "audio", "b.wav", "test", "cat")


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_the_three_formats_give_the_same_samples(tmp_path: Path) -> None:
    """A manifest says the same in CSV, JSONL and Parquet."""
    columns = "sample_id,uri,modality,category,split,object_id,description"
    rows = [
        ["s1", "a.png", "image", "dog", "train", "o1", "a brown dog"],
        ["s2", "b.wav", "audio", "cat", "test", None, None],
    ]
    names = columns.split(",")
    csv = "\n".join([columns, *(",".join(cell or "" for cell in row) for row in rows)])
    records = [dict(zip(names, row, strict=True)) for row in rows]
    jsonl = "\n".join(str(record).replace("'", '"').replace("None", "null") for record in records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "m.parquet")
    paths = [write(tmp_path / "m.csv", csv), write(tmp_path / "m.jsonl", jsonl), tmp_path / "m.parquet"]
    for path in paths:
        manifest = read_manifest(path)
        assert manifest.samples == (DOG, CAT)
        assert manifest.categories == (Category("cat", "cat"), Category("dog", "dog"))
        assert manifest.root == tmp_path
        assert manifest.notes == ()


def test_every_default_is_said(tmp_path: Path) -> None:
    """A manifest of bare paths works, and its notes tell what was taken for granted."""
    manifest = read_manifest(write(tmp_path / "m.csv", "uri\na.png\nthermal_1.jpg\n"))
    assert manifest.samples == (
        Sample("a.png", "image", "a.png"),
        Sample("thermal_1.jpg", "thermal", "thermal_1.jpg"),
    )
    told = "; ".join(manifest.notes)
    for words in (
        "uri is the id",
        "1 image, 1 thermal",
        "every sample is 'test'",
        "2 of 2 samples have no category",
    ):
        assert words in told


def test_a_told_modality_wins_over_guessing_but_not_over_the_column(tmp_path: Path) -> None:
    """`modality=` names the modality of pictures that look like photos; a column is not overruled."""
    bare = write(tmp_path / "m.csv", "uri\na.png\n")
    assert read_manifest(bare, modality="event").samples[0].modality == "event"
    column = write(tmp_path / "n.csv", "uri,modality\na.png,image\n")
    assert read_manifest(column, modality="event").samples[0].modality == "image"


def test_all_mistakes_are_told_at_once_with_rows_and_suggestions(tmp_path: Path) -> None:
    """Every kind of structural mistake stands in one error, also several of one row."""
    (tmp_path / "link.png").symlink_to("/etc/hostname")
    rows = [
        "sample_id,uri,modality,splt,split,category",
        "a,a.png,imag,x,train,dog",
        "a,b.png,image,x,train,dog",
        "b,../c.png,photo,x,validation,dog",
        "c,/etc/passwd,image,x,tset,dog",
        "d,link.png,image,x,,dog",
        ",e.png,image,x,test,dog",
        "f,,image,x,test,dog",
        "g,g.png,,x,test,!!!",
    ]
    with pytest.raises(ManifestError) as error:
        read_manifest(write(tmp_path / "m.csv", "\n".join(rows)))
    told = str(error.value)
    for words in (
        "13 mistakes",
        "header: unknown column 'splt'; did you mean 'split'?",
        "line 2: unknown modality 'imag'; did you mean 'image'?",
        "line 3: sample_id 'a' is already used by line 2",
        "line 4: uri '../c.png' contains '..'",
        "line 4: unknown modality 'photo'; did you mean 'image'?",
        "line 4: unknown split 'validation'; did you mean 'val'?",
        "line 5: uri '/etc/passwd' is absolute",
        "line 5: unknown split 'tset'; did you mean 'test'?",
        "line 6: uri 'link.png' is or passes a link that leads outside",
        "line 6: no split",
        "line 7: no sample_id",
        "line 8: no uri",
        "line 9: no modality",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no sample in it"),
        ("uri\n", "no sample in it"),
        ("path\na.png\n", "no column 'uri'"),
        ("uri\na.unknown\n", "has no known modality by its name"),
        ('uri\n"a\nb.png"\n', "a line break or tab"),
        ("a.png,dog\nb.png,cat\n", "the first line must name the columns, and it has 'a.png', 'dog'"),
        ("uri,label\na.png,dog\n", "unknown column 'label'; did you mean 'category'?"),
        ("uri,category\na.png,\u200b\n", "has no visible character"),
        ("uri,category,category_id\na.png,dog,1\nb.png,cat,1\n", "use one spelling"),
    ],
)
def test_manifests_that_say_nothing_or_two_things(tmp_path: Path, content: str, message: str) -> None:
    """Empty, aimless and ambiguous manifests are refused."""
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path / "m.csv", content))


def test_capitals_of_splits_and_modalities_do_not_matter(tmp_path: Path) -> None:
    """A spreadsheet writes Train and IMAGE: they are read, and it is said once."""
    rows = "uri,split,modality\na,Train,IMAGE\nb,Train,image\nc,test,Audio\n"
    manifest = read_manifest(write(tmp_path / "m.csv", rows))
    assert [(s.split, s.modality) for s in manifest.samples] == [
        ("train", "image"),
        ("train", "image"),
        ("test", "audio"),
    ]
    assert manifest.notes[:3] == (
        "modality 'IMAGE' is read as 'image'",
        "split 'Train' is read as 'train'",
        "modality 'Audio' is read as 'audio'",
    )


def test_back_slashes_are_folders_unless_a_file_is_called_so(tmp_path: Path) -> None:
    """A Windows path is read with `/`, which is said; a file whose name has a back slash is that file."""
    (tmp_path / "a\\b.png").touch()
    path = write(tmp_path / "m.csv", "uri\nx\\y\\z.png\na\\b.png\nc.png\n")
    manifest = read_manifest(path)
    assert [sample.uri for sample in manifest.samples] == ["x/y/z.png", "a\\b.png", "c.png"]
    assert manifest.samples[0].sample_id == "x/y/z.png"
    assert any("1 uri with '\\': read as '/'" in note for note in manifest.notes)
    for uri, message in (("C:\\x.png", "is absolute"), ("x\\..\\..\\y.png", "contains '..'")):
        with pytest.raises(ManifestError, match=message):
            read_manifest(write(tmp_path / "m.csv", f"uri\n{uri}\n"))


def test_a_manifest_of_excels_unicode_text(tmp_path: Path) -> None:
    """A `.txt` in UTF-16 with tabs is read as the table that it is."""
    text = "\ufeffURI\tCategory\r\na.png\tcafé\r\n\t\r\n"
    (tmp_path / "m.txt").write_bytes(text.encode("utf-16-le"))
    manifest = read_manifest(tmp_path / "m.txt")
    assert manifest.samples == (Sample("a.png", "image", "a.png", "test", "café"),)
    assert any("1 empty row" in note for note in manifest.notes)


def test_a_list_of_categories_rules(tmp_path: Path) -> None:
    """With a list a sample's category must be in it, by name or id; one without samples is kept and noted."""
    listed = write(tmp_path / "c.csv", "category_id,name\nn01,Shetland sheepdog\nn02,tabby\n")
    good = write(tmp_path / "m.csv", "uri,split,category\na.png,test,Shetland sheepdog\nb.png,test,n01\n")
    manifest = read_manifest(good, categories=listed)
    assert {sample.category_id for sample in manifest.samples} == {"n01"}
    assert [category.category_id for category in manifest.categories] == ["n01", "n02"]
    assert any("1 categories have no sample" in note for note in manifest.notes)
    bad = write(tmp_path / "b.csv", "uri,category,category_id\na.png,Shetland shepdog,\nb.png,,n3\n")
    with pytest.raises(ManifestError) as error:
        read_manifest(bad, categories=listed)
    assert "'Shetland shepdog' is not in the category list; did you mean 'Shetland sheepdog'?" in str(
        error.value
    )
    assert "category_id 'n3' is not in the category list" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (["a.png,train,dog,", "a.png,test,dog,"], "1 file in split train and in another, such as 'a.png'"),
        (["./b//a.png,train,dog,", "b/a.png,test,dog,"], "in split train and in another, such as 'b/a.png'"),
        (["a.png,test,dog,", "a.png,test,cat,"], "1 file with rows of different categories, such as 'a.png'"),
        (["a.png,train,dog,7", "b.png,val,dog,7"], "1 object in split train and in another, such as '7'"),
        (["a.png,test,dog,7", "b.png,test,cat,7"], "1 object with rows of different categories, such as '7'"),
        (["a.png,test,dog,NA", "b.png,test,dog,NA"], "'NA' is read as the object_id of 2 samples"),
        (["a.png,test,dog,\u200b", "b.png,test,dog,\u200b"], r"'\u200b' is read as the object_id of 2"),
        (["a.png,test,dog,,nan", "b.png,test,dog,,a dog"], "'nan' is read as the description of 1 samples"),
    ],
)
def test_what_makes_scores_wrong_is_noted(rows: list[str], note: str, tmp_path: Path) -> None:
    """Leaks between splits, files of two labels and ids that mean nothing are allowed, and said once."""
    lines = [f"{number},{row}" for number, row in enumerate(rows)]
    lines += ["x,x.png,train,cat|dog,8", "y,x.png,train,dog,8", "z,y.png,test,,8x"]
    lines = [line + "," * (5 - line.count(",")) for line in lines]
    text = "\n".join(["sample_id,uri,split,category,object_id,description", *lines])
    notes = read_manifest(write(tmp_path / "m.csv", text)).notes
    assert [each for each in notes if note in each]
    assert len([each for each in notes if "such as" in each or "is read as" in each]) == 1


def test_the_root_can_lie_elsewhere(tmp_path: Path) -> None:
    """`root` says what uris are relative to, and what they must not leave."""
    (tmp_path / "media").mkdir()
    manifest = read_manifest(write(tmp_path / "m.csv", "uri\na.png\n"), root=tmp_path / "media")
    assert manifest.root == tmp_path / "media"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """`write_manifest` keeps every field, and names when categories are given; without, ids become names."""
    categories = (Category("cat", "cat"), Category("dog", "dog"))
    write_manifest(tmp_path / "m.parquet", [DOG, CAT], categories=categories)
    assert read_manifest(tmp_path / "m.parquet").samples == (DOG, CAT)
    sample = Sample("s", "image", "a.png", "val", "wooden-ball")
    write_manifest(tmp_path / "n.parquet", [sample])
    manifest = read_manifest(tmp_path / "n.parquet")
    assert manifest.samples == (sample,)
    assert manifest.categories == (Category("wooden-ball", "wooden ball"),)
    assert "no category names: derived from the category ids" in manifest.notes


@pytest.mark.parametrize("name", ["a" * 5000 + ".csv", "x\0y.csv", "loop.csv", "/dev/null", "/dev/zero"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    """A name too long, one with a NUL, a loop of links and a device are one line, too."""
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    for read in (read_manifest, read_categories):
        with pytest.raises(ManifestError, match=r"no such file|unknown format"):
            read(tmp_path / name)


def test_folders_and_files_that_are_no_manifest(tmp_path: Path) -> None:
    """A folder points to `unibind init`; an unknown JSON file to the official lists' names."""
    with pytest.raises(ManifestError, match="unibind init"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match=r"train_data\.json"):
        read_manifest(write(tmp_path / "other.json", "[]"))
