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
from kb_builder.encode.planned_rows import PlanLimits
from kb_builder.encode.rows import HASH, TEXT, StoredTexts, WantedVectors, digests_of, hash_texts
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
    ids, groups = pa.array([f"{row:03d}" for row in range(count)], TEXT), pa.array(["g"] * count, TEXT)
    contents = pa.array([each.tobytes() for each in digests], HASH)
    return WantedVectors(ids, groups, contents, pa.array([""] * count, TEXT))


def test_texts_are_read_again_in_any_order(tmp_path: Path) -> None:
    """From several files and row groups, repeated or not."""
    files = []
    for number, some in enumerate((TEXTS[:4], TEXTS[4:], [])):
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table({"text": pa.array(some, pa.string())}), files[-1], row_group_size=3)
    stored = StoredTexts(files, np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 0, 1]))
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
    tables = {"t": wanted_texts(tmp_path, "category_texts")}
    with plan_parts(tmp_path / "out", tables, identity="i", rows_per_part=100) as plan:
        some = plan.rows(plan.parts[0])
    expected = sorted((group, name, text) for name, group, text, status in rows if status == "ok")
    assert isinstance(some.sources, StoredTexts)
    assert list(zip(some.groups, some.ids, some.sources.to_pylist(), strict=True)) == expected
    assert some.contents == [hash_text(text) for _, _, text in expected]
    assert [*wanted_texts(tmp_path, "sample_texts"), *wanted_texts(tmp_path, "controls")] == []


def test_a_text_that_changes_meanwhile_is_not_encoded(tmp_path: Path) -> None:
    """A vector is stored under the hash of its text, so a text that no longer has it ends the run."""
    path = tmp_path / "descriptions/category/part-00000.parquet"
    write(path, [("r1", "a", "a cup", "ok"), ("r2", "a", "a bowl", "ok")])
    for after in (
        [("r1", "a", "a cup", "ok"), ("r2", "a", "a vase", "ok")],
        [("r1", "a", "a cup", "ok")],
        None,
    ):
        wanted = {"t": wanted_texts(tmp_path, "category_texts")}
        with plan_parts(tmp_path / "out", wanted, identity="lengths", rows_per_part=8) as plan:
            if after is None:
                path.unlink()
            else:
                write(path, after)
            with pytest.raises(KnowledgeBaseError, match="changed while"):
                encode_parts(plan, Lengths(), Encode(), what="texts")
        write(path, [("r1", "a", "a cup", "ok"), ("r2", "a", "a bowl", "ok")])
    wanted = {"t": wanted_texts(tmp_path, "category_texts")}
    with plan_parts(tmp_path / "out", wanted, identity="lengths", rows_per_part=8) as plan:
        encode_parts(plan, Lengths(), Encode(), what="texts")
    assert read_vectors(tmp_path / "out" / "t").ids == ["r1", "r2"]


@pytest.mark.parametrize("alike", [0, 8, 31])
@pytest.mark.parametrize("rows_per_bucket", [7, 1000])
def test_contents_are_equal_if_all_their_bytes_are(alike: int, rows_per_bucket: int, tmp_path: Path) -> None:
    """Also where hashes begin with the same `alike` bytes, and whatever their buckets."""
    draw = np.random.default_rng(alike)
    kinds = draw.integers(0, 256, (20, 32), dtype=np.uint8)
    kinds[:, :alike] = 7
    kinds[:, 31] = np.arange(20)
    which = draw.integers(0, 20, 90)
    digests = kinds[which].copy()
    tables = {"one": [planned(digests[:50])], "none": [], "two": [planned(digests[50:])]}
    stranger = kinds[:1].copy()
    stranger[0, 31] = 99
    limits = PlanLimits(rows_per_bucket=rows_per_bucket)
    with plan_parts(tmp_path, tables, identity="i", rows_per_part=8, limits=limits) as plan:
        firsts = np.concatenate([plan.firsts(part) for part in plan.parts])
        assert firsts.tolist() == [which.tolist().index(kind) for kind in which]
        owners = plan.owners(firsts)
        for owner, first in zip(owners.tolist(), firsts.tolist(), strict=True):
            assert plan.parts[owner].start <= first < plan.parts[owner].stop
        assert plan.distinct == len(set(which.tolist())) == plan.owned.sum()
        assert plan.owned.tolist() == [sum(owners[np.unique(firsts)] == n) for n in range(len(plan.parts))]
        contents = [each for part in plan.parts for each in plan.rows(part).contents]
        assert contents == [each.tobytes().hex() for each in digests]
        asked = [["", "no hash", stranger[0].tobytes().hex()], *([contents[row]] * 2 for row in (60, 3, 60))]
        told = [digests_of(pa.array(["any"] * len(each)), pa.array(each), files=False) for each in asked]
        carried = plan.carry(told)
        held = np.concatenate([plan.carried_by(part) for part in plan.parts])
    by_kind = {int(which[60]): 1, int(which[3]): 2}
    assert held.tolist() == [by_kind.get(int(kind), -1) for kind in which]
    assert carried.sum() == len(by_kind)
    assert list(tmp_path.iterdir()) == []


def test_columns_that_grow_with_the_rows_are_joined_beyond_two_gibibytes(tmp_path: Path) -> None:
    """Offsets of `string` overflow at 33.5 million hashes: no such column is left, whatever comes in."""
    for number in range(2):
        rows = [(f"r{number}{n}", "a", f"text {n}", "ok") for n in range(5)]
        write(tmp_path / f"descriptions/category/part-{number:05d}.parquet", rows)
    texts = list(wanted_texts(tmp_path, "category_texts"))
    with plan_parts(tmp_path / "out", {"t": texts}, identity="lengths", rows_per_part=4) as plan:
        encode_parts(plan, Lengths(), Encode(device="cpu"), what="texts")
    columns = [column for piece in texts for column in (piece.ids, piece.groups)]
    columns += open_table(tmp_path / "out" / "t").read_names()
    assert {column.type for column in columns} == {pa.large_string()}
    ids = [name for piece in texts for name in piece.ids.to_pylist()]
    assert open_table(tmp_path / "out" / "t").read("a").ids == sorted(ids)


def test_files_are_equal_within_a_modality() -> None:
    """One content as a picture and as a thermal picture is two."""
    contents = pa.array([hash_text("a")] * 3)
    digests = digests_of(pa.array(["image", "thermal", "image"]), contents, files=True)
    assert (digests[0] == digests[2]).all()
    assert (digests[0] != digests[1]).any()
    assert digests[0].tobytes() == sha256(f"image:{hash_text('a')}".encode()).digest()
