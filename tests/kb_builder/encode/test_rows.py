"""Rows in little memory: texts are read again where they are stored; hashes decide which are equal."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from data.files import hash_text
from data.modality import Modality
from kb_builder.encode.embed import wanted_texts
from kb_builder.encode.parts import encode_parts
from kb_builder.encode.plan import plan_parts
from kb_builder.encode.rows import HASH, StoredTexts, WantedVectors, digests_of, hash_texts, numbered
from kb_builder.encoders.base import Source
from kb_builder.settings import Encode
from kb_builder.store.table import open_table, read_vectors


class Lengths:
    """An encoder whose vectors are the same for all texts of a length."""

    name = identity = licence = "lengths"
    dim, parameters = 2, 0
    modalities = frozenset({"text"})

    def prepare(self, modality: Modality, source: Source) -> str:
        return str(source)

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        angles = np.array([len(text) for text in batch], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


TEXTS = ["a cup", "木 \U0001f600", "", "a cup", "x" * 1000, "a bowl"]


def write(path: Path, rows: list[tuple[str, str, str, str]], *, row_group_size: int = 2) -> None:
    names = ("row_id", "category_id", "text", "status")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [each[at] for each in rows] for at, name in enumerate(names)}
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)


def planned(digests: np.ndarray) -> WantedVectors:
    """Texts with these hashes."""
    count = len(digests)
    ids, groups = pa.array([f"{row:03d}" for row in range(count)]), pa.array(["g"] * count)
    contents = pa.array([each.tobytes() for each in digests], HASH)
    return WantedVectors(ids, numbered(pa.chunked_array([groups])), contents, pa.array([""] * count))


def test_texts_are_read_again_in_any_order(tmp_path: Path) -> None:
    """From several files and row groups, repeated or not."""
    files = []
    for number, some in enumerate((TEXTS[:4], TEXTS[4:], [])):
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table({"text": pa.array(some, pa.string())}), files[-1], row_group_size=3)
    stored = StoredTexts(files, [0, 4, 6], np.arange(6))
    assert stored.to_pylist() == TEXTS
    some = stored.take(np.array([5, 0, 3, 1, 0]))
    assert some.to_pylist() == [TEXTS[at] for at in (5, 0, 3, 1, 0)]
    assert some.take(pa.array([1, 0])).to_pylist() == [TEXTS[0], TEXTS[5]]
    assert stored.take(np.array([], np.int64)).to_pylist() == []


def test_hashes_are_those_of_the_texts() -> None:
    """Of a slice as well, and of no text."""
    column = pa.array(TEXTS, pa.string())
    for some in (column, column[1:4], column[:0]):
        assert [each.hex() for each in hash_texts(some).to_pylist()] == [
            hash_text(text) for text in some.to_pylist()
        ]


def test_the_rows_of_a_table_are_the_accepted_ones(tmp_path: Path) -> None:
    """Of all files in the order of their names; ids, categories and texts belong together after sorting."""
    rows = [(f"r{9 - n}", "cb"[n % 2], f"text {n}", "ok" if n % 3 else "duplicate") for n in range(10)]
    write(tmp_path / "descriptions/category/part-00001.parquet", rows[:6])
    write(tmp_path / "descriptions/category/part-00000.parquet", rows[6:], row_group_size=3)
    wanted = wanted_texts(tmp_path, "category_texts")
    wanted.sort()
    expected = sorted((group, name, text) for name, group, text, status in rows if status == "ok")
    columns = wanted.groups.to_pylist(), wanted.ids.to_pylist(), wanted.sources.to_pylist()
    assert list(zip(*columns, strict=True)) == expected
    assert wanted.hexes(range(len(wanted))) == [hash_text(text) for _, _, text in expected]
    assert len(wanted_texts(tmp_path, "sample_texts")) == len(wanted_texts(tmp_path, "controls")) == 0


def test_a_text_that_changes_meanwhile_is_not_encoded(tmp_path: Path) -> None:
    """A vector is stored under the hash of its text, so a text that no longer has it ends the run."""
    path = tmp_path / "descriptions/category/part-00000.parquet"
    write(path, [("r1", "a", "a cup", "ok"), ("r2", "a", "a bowl", "ok")])
    for after in (
        [("r1", "a", "a cup", "ok"), ("r2", "a", "a vase", "ok")],
        [("r1", "a", "a cup", "ok")],
        None,
    ):
        wanted = wanted_texts(tmp_path, "category_texts")
        plan = plan_parts(tmp_path / "out", {"t": wanted}, identity="lengths", rows_per_part=8)
        if after is None:
            path.unlink()
        else:
            write(path, after)
        with pytest.raises(KnowledgeBaseError, match="changed while"):
            encode_parts(plan, Lengths(), Encode(), what="texts")
        write(path, [("r1", "a", "a cup", "ok"), ("r2", "a", "a bowl", "ok")])
    plan = plan_parts(
        tmp_path / "out",
        {"t": wanted_texts(tmp_path, "category_texts")},
        identity="lengths",
        rows_per_part=8,
    )
    encode_parts(plan, Lengths(), Encode(), what="texts")
    assert read_vectors(tmp_path / "out" / "t").ids == ["r1", "r2"]


@pytest.mark.parametrize("alike", [0, 8, 31])
def test_contents_are_equal_if_all_their_bytes_are(alike: int, tmp_path: Path) -> None:
    """Codes are numbered by first appearance, also where hashes begin with the same `alike` bytes."""
    draw = np.random.default_rng(alike)
    kinds = draw.integers(0, 256, (20, 32), dtype=np.uint8)
    kinds[:, :alike] = 7
    kinds[:, 31] = np.arange(20)
    which = draw.integers(0, 20, 90)
    digests = kinds[which].copy()
    tables = {"one": planned(digests[:50]), "none": planned(digests[:0]), "two": planned(digests[50:])}
    plan = plan_parts(tmp_path, tables, identity="i", rows_per_part=8)
    codes = np.concatenate(list(plan.codes.values()))
    seen: dict[int, int] = {}
    assert codes.tolist() == [seen.setdefault(kind, len(seen)) for kind in which.tolist()]
    first = [which.tolist().index(kind) for kind in seen]
    owners = [next(n for n, p in enumerate(plan.parts) if codes[row] in plan.codes_of(p)) for row in first]
    assert plan.owners.tolist() == owners
    assert plan.keys_of(codes) == [f"text:{each.tobytes().hex()}" for each in digests]
    stranger = kinds[:1].copy()
    stranger[0, 31] = 99
    asked = np.concatenate([digests[::-1], stranger])
    contents = pa.array([*(each.tobytes().hex() for each in asked), "", "no hash"])
    found = plan.find(pa.array(["any"] * len(contents)), contents, files=False)
    assert found.tolist() == [*codes[::-1].tolist(), -1, -1, -1]


def test_columns_that_grow_with_the_rows_are_joined_beyond_two_gibibytes(tmp_path: Path) -> None:
    """Offsets of `string` overflow at 33.5 million hashes: no such column is left, whatever comes in."""
    for number in range(2):
        rows = [(f"r{number}{n}", "a", f"text {n}", "ok") for n in range(5)]
        write(tmp_path / f"descriptions/category/part-{number:05d}.parquet", rows)
    texts = wanted_texts(tmp_path, "category_texts")
    names = pa.array([f"s{n}" for n in range(5)], pa.string())
    groups = numbered(pa.chunked_array([pa.array(["image"] * 5, pa.string())]))
    files = WantedVectors(names, groups, names, names, files=True, labels=names, ups=names)
    plan = plan_parts(tmp_path / "out", {"t": texts}, identity="lengths", rows_per_part=4)
    encode_parts(plan, Lengths(), Encode(device="cpu"), what="texts")
    plan_parts(tmp_path / "out", {"s": files}, identity="lengths", rows_per_part=4)
    columns = [texts.ids, files.ids, files.contents, files.sources, files.labels, files.ups]
    columns += open_table(tmp_path / "out" / "t").read_names()
    assert {column.type for column in columns} == {pa.large_string()}
    assert texts.groups.type.value_type == pa.large_string()
    assert open_table(tmp_path / "out" / "t").read("a").ids == sorted(texts.ids.to_pylist())


def test_files_are_equal_within_a_modality() -> None:
    """One content as a picture and as a thermal picture is two."""
    contents = pa.array([hash_text("a")] * 3)
    digests = digests_of(pa.array(["image", "thermal", "image"]), contents, files=True)
    assert (digests[0] == digests[2]).all()
    assert (digests[0] != digests[1]).any()
    assert digests[0].tobytes() == sha256(f"image:{hash_text('a')}".encode()).digest()
