"""data.folder.resplit: splits drawn into a manifest, and nothing else changed."""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ManifestError
from data.folder.resplit import resplit_manifest
from data.manifest.read import read_manifest

FILES = [
    (f"m/{category}{n}.{ending}", category)
    for category in ("ox", "ape")
    for n in "abcde"
    for ending in ("wav", "txt")
]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Ten things, each a sound and a text of one name."""
    (tmp_path / "m").mkdir()
    for uri, _ in FILES:
        (tmp_path / uri).write_text(uri)
    return tmp_path


def as_csv(folder: Path) -> Path:
    lines = ["uri,category,description", *(f'{uri},{category},"a, ""b"""' for uri, category in FILES)]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


def as_excel(folder: Path) -> Path:
    lines = ["sep=;", ";URI;Category;;", *(f"{n};{uri};{c};;" for n, (uri, c) in enumerate(FILES)), ";;;;"]
    (folder / "m.csv").write_bytes(codecs.BOM_UTF8 + ("\r\n".join(lines) + "\r\n").encode())
    return folder / "m.csv"


def as_unicode_text(folder: Path) -> Path:
    lines = ["uri\tcategory", *(f"{uri}\t{category}" for uri, category in FILES)]
    (folder / "m.tsv").write_text("\n".join(lines), encoding="utf-16")
    return folder / "m.tsv"


def as_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"uri": uri, "category": [category, "ox"]}) for uri, category in FILES]
    (folder / "m.jsonl").write_text("\n\n".join(lines))
    return folder / "m.jsonl"


def as_parquet(folder: Path) -> Path:
    rows = [
        {"uri": uri, "category": category, "split": None, "__index_level_0__": 5} for uri, category in FILES
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    return folder / "m.parquet"


@pytest.mark.parametrize("write", [as_csv, as_excel, as_unicode_text, as_jsonl, as_parquet])
def test_splits_are_drawn_by_things_and_all_else_stays(media: Path, write: Callable[[Path], Path]) -> None:
    """6, 2 and 2 of each category, a thing's files together; the same manifest but for the column split."""
    path = write(media)
    before, raw = read_manifest(path, splits=False), path.read_bytes()
    done = resplit_manifest(path)
    after = read_manifest(path)
    assert Counter((s.category_id, s.split) for s in after.samples) == {
        (category, split): n
        for category in ("ox", "ape")
        for split, n in {"train": 6, "val": 2, "test": 2}.items()
    }
    splits = {sample.uri: sample.split for sample in after.samples}
    assert all(splits[uri] == splits[uri.replace("wav", "txt")] for uri in splits)
    assert [(s.uri, s.category_id, s.description) for s in after.samples] == [
        (s.uri, s.category_id, s.description) for s in before.samples
    ]
    assert done.backup.read_bytes() == raw
    assert done.splits == tuple(s.split for s in after.samples)


def test_form_and_further_cells_stay(media: Path) -> None:
    """Excel's mark, separator line, separator, line ends, index column and empty rows are as they were."""
    path = as_excel(media)
    before = path.read_bytes().decode("utf-8-sig").split("\r\n")
    resplit_manifest(path)
    raw = path.read_bytes()
    assert raw.startswith(codecs.BOM_UTF8 + b"sep=;\r\n;URI;Category;;;split\r\n0;m/oxa.wav;ox;;;")
    after = raw.decode("utf-8-sig").split("\r\n")
    assert [line.rpartition(";")[0] for line in after[2:22]] == before[2:22]
    assert "\n" not in raw.decode("utf-8-sig").replace("\r\n", "")
    rows = list(csv.reader(as_csv(media).read_text().splitlines()))
    resplit_manifest(media / "m.csv")
    assert [row[:3] for row in csv.reader((media / "m.csv").read_text().splitlines())] == rows


@pytest.mark.parametrize("name", ["Split", "SPLIT ", "split_"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_column_in_another_spelling_is_the_column(name: str, ending: str, media: Path) -> None:
    """No second column of splits stands beside it, which would make the manifest unreadable."""
    rows = [{"uri": uri, "category": category, name: "train"} for uri, category in FILES]
    path = media / f"m.{ending}"
    if ending == "csv":
        lines = [f"uri,category,{name}", *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    done = resplit_manifest(path, force=True)
    assert tuple(sample.split for sample in read_manifest(path).samples) == done.splits


def test_lines_of_json_stay_as_they_are(media: Path) -> None:
    """Encoding, marks within the file, spaces and figures are kept; the split comes behind them."""
    lines = [f'{{"uri":"{uri}" , "object_id": 1.50e1{n}}} ' for n, (uri, _) in enumerate(FILES)]
    text = "\n".join([*lines[:3], "", "\ufeff" + lines[3], *lines[4:]])
    (media / "m.jsonl").write_text(text, encoding="utf-16")
    done = resplit_manifest(media / "m.jsonl")
    after = (media / "m.jsonl").read_text(encoding="utf-16").split("\n")
    assert after[0] == f'{lines[0].strip()[:-1]}, "split": "{done.splits[0]}"}}'
    assert after[3] == ""
    assert tuple(sample.split for sample in read_manifest(media / "m.jsonl").samples) == done.splits


def test_splits_that_are_there_are_kept_unless_forced(media: Path) -> None:
    """A refusal says which there are and changes nothing; forced, every earlier file is kept."""
    path = as_csv(media)
    first = resplit_manifest(path)
    raw = path.read_bytes()
    with pytest.raises(ManifestError, match=r"has splits \(4 test, 12 train, 4 val\).*--force"):
        resplit_manifest(path)
    assert path.read_bytes() == raw
    again = resplit_manifest(path, force=True)
    assert (again.splits, path.read_bytes()) == (first.splits, raw)
    assert again.backup != first.backup
    assert again.backup.read_bytes() == raw
    assert resplit_manifest(path, force=True, seed=1).splits != first.splits


def test_the_manifests_own_things_count(media: Path) -> None:
    """Rows of one object_id go together, whatever their names; unreadable splits do not matter, forced."""
    lines = ["uri,category,object_id,split"]
    lines += [f"{uri},{category},{n % 4},perhaps" for n, (uri, category) in enumerate(FILES)]
    (media / "m.csv").write_text("\n".join(lines))
    resplit_manifest(media / "m.csv", force=True)
    of_object: dict[str | None, set[str]] = {}
    for sample in read_manifest(media / "m.csv").samples:
        of_object.setdefault(sample.object_id, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in of_object.values())


def test_a_broken_manifest_is_not_touched(media: Path) -> None:
    """Its mistakes are told as ever; no file is written."""
    (media / "m.csv").write_text("uri,colour\na.wav,red\n")
    with pytest.raises(ManifestError, match="unknown column 'colour'"):
        resplit_manifest(media / "m.csv")
    assert [path.name for path in media.glob("m.*")] == ["m.csv"]
