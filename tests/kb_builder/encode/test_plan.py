"""The plan is the same whatever memory it has, and the same as in earlier versions."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import KnowledgeBaseError
from data.files import hash_json
from kb_builder.encode.embed import forget_plans
from kb_builder.encode.plan import Plan, VectorPart, plan_parts
from kb_builder.encode.planned_rows import PlanLimits
from kb_builder.encode.rows import HASH, TEXT, WantedVectors
from tests.kb_builder.encode.letters import LetterCounter, hashes, picture, run

Rows = list[tuple[str, str, bytes]]  # group, id, hash


def some_rows(count: int, groups: int, *, contents: int, seed: int) -> Rows:
    """Groups of any size, ids without an order, contents that repeat within and between groups."""
    draw = np.random.default_rng(seed)
    own = draw.zipf(1.5, count) % groups
    which = draw.integers(0, contents, count)
    names = [f"g{group:02d}-é木"[: 3 + number % 4] for number, group in enumerate(own.tolist())]
    ids = [sha256(b"%d %d" % (seed, number)).hexdigest() for number in range(count)]
    return list(zip(names, ids, (sha256(b"%d" % each).digest() for each in which.tolist()), strict=True))


def pieces(rows: Rows, size: int) -> Iterator[WantedVectors]:
    for start in range(0, len(rows), size):
        groups, ids, contents = zip(*rows[start : start + size], strict=True)
        columns = pa.array(ids, TEXT), pa.array(groups, TEXT), pa.array(contents, HASH)
        yield WantedVectors(*columns, pa.array([f"text of {each}" for each in ids], TEXT))


def by_hand(tables: dict[str, Rows], size: int) -> tuple[list[VectorPart], list[int]]:
    """The parts, and of each row of the plan the first row with its content."""
    parts, all_rows = [], []
    for table, rows in tables.items():
        before = len(all_rows)
        ordered = sorted(rows)
        cuts, part = [], 0
        for _, group in groupby(ordered, key=lambda row: row[0]):
            left = len(list(group))
            if part and part + left > size:
                cuts.append(part)
                part = 0
            while part + left > size:
                cuts.append(size)
                left -= size
            part += left
        start = 0
        for number, length in enumerate([*cuts, part] if ordered else []):
            some = ordered[start : start + length]
            columns = [[row[1] for row in some], [row[0] for row in some], [row[2].hex() for row in some]]
            place = before + start
            parts.append(VectorPart(table, number, place, place + length, hash_json(["i", False, *columns])))
            start += length
        all_rows += ordered
    firsts: dict[bytes, int] = {}
    return parts, [firsts.setdefault(row[2], number) for number, row in enumerate(all_rows)]


def told(plan: Plan) -> dict[str, Any]:
    """All that a plan says."""
    rows = [plan.rows(part) for part in plan.parts]
    return {
        "firsts": [plan.firsts(part).tolist() for part in plan.parts],
        "ids": [each.ids for each in rows],
        "sources": [each.sources for each in rows],
        "distinct": plan.distinct,
        "owned": plan.owned.tolist(),
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_is_that_made_by_hand(tmp_path: Path, seed: int) -> None:
    """Of three tables, one empty, that come in pieces of any size; in one bucket and in many."""
    tables = {
        "one": some_rows(400, 30, contents=250, seed=seed),
        "none": [],
        "two": some_rows(300, 3, contents=400, seed=seed + 100),
    }
    parts, firsts = by_hand(tables, 32)
    found = []
    for size, limits in ((7, PlanLimits(rows_per_bucket=50)), (1000, PlanLimits(threads=1))):
        given = {name: pieces(rows, size) for name, rows in tables.items()}
        with plan_parts(tmp_path, given, identity="i", rows_per_part=32, limits=limits) as plan:
            assert list(plan.parts) == parts
            assert np.concatenate([plan.firsts(part) for part in parts]).tolist() == firsts
            assert plan.distinct == len(set(firsts))
            found.append(told(plan))
    assert found[0] == found[1]
    assert found[0]["sources"] == [[f"text of {each}" for each in ids] for ids in found[0]["ids"]]


def test_groups_may_have_parts_of_their_own_sizes(tmp_path: Path) -> None:
    """A part with rows of several groups is filled by shares of each; equal sizes are one size."""
    counts = {"a": 10, "b": 3, "c": 100, "d": 1}
    rows = [(group, f"{group}{n:03d}", b"1" * 32) for group, count in counts.items() for n in range(count)]
    sizes = {"a": 4, "b": 6, "c": 50, "d": 7}
    with plan_parts(tmp_path, {"t": pieces(rows, 9)}, identity="i", rows_per_part=sizes) as plan:
        found = [[plan.rows(part).groups.count(group) for group in counts] for part in plan.parts]
        assert found == [[4, 0, 0, 0], [4, 0, 0, 0], [2, 3, 0, 0], [0, 0, 50, 0], [0, 0, 50, 0], [0, 0, 0, 1]]
    rows = some_rows(400, 30, contents=250, seed=1)
    alike = dict.fromkeys({row[0] for row in rows}, 32)
    plans = []
    for size in (alike, 32):
        with plan_parts(tmp_path, {"t": pieces(rows, 400)}, identity="i", rows_per_part=size) as plan:
            plans.append(plan.parts)
    assert plans[0] == plans[1]


def test_a_plan_that_does_not_fit_into_memory_is_the_same(tmp_path: Path) -> None:
    """What exceeds it is in a hidden folder, gone afterwards; the next run removes a killed one's."""
    rows = some_rows(200_000, 500, contents=150_000, seed=1)
    found, seen = [], []
    for limits in (PlanLimits(64, sortable=100, threads=1, rows_per_bucket=10_000), PlanLimits()):
        given = {"t": pieces(rows, 50_000)}
        with plan_parts(tmp_path / "new", given, identity="i", rows_per_part=4_096, limits=limits) as plan:
            found.append((plan.parts, told(plan)))
            seen.append(sum(path.stat().st_size for path in (tmp_path / "new").rglob("*") if path.is_file()))
        assert not (tmp_path / "new").exists()
    assert seen[0] > 0 == seen[1]
    assert found[0] == found[1]
    (tmp_path / ".plan.left").mkdir()
    (tmp_path / ".plan.left" / "data").write_bytes(b"1")
    forget_plans(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_duplicate_id_is_refused_by_its_table(tmp_path: Path) -> None:
    """In any groups; the same id in two tables is none."""
    rows = some_rows(50, 5, contents=50, seed=2)
    with plan_parts(
        tmp_path, {"a": pieces(rows, 9), "b": pieces(rows, 9)}, identity="i", rows_per_part=8
    ) as plan:
        assert plan.distinct == len({row[2] for row in rows})
    least = sorted(row[1] for row in rows)[:2]
    twice = [*rows, *(("other", each, b"1" * 32) for each in reversed(least))]
    tables = {"a": pieces(rows, 9), "b": pieces(twice, 9)}
    with (
        pytest.raises(KnowledgeBaseError, match=f"b: duplicate id '{least[0]}' in the rows to encode"),
        plan_parts(tmp_path, tables, identity="i", rows_per_part=8),
    ):
        pass


def test_a_full_disk_is_told_with_its_place(tmp_path: Path) -> None:
    """Here: no memory, and a disk that takes nothing."""
    rows = some_rows(60_000, 500, contents=50_000, seed=1)
    limits = PlanLimits(2, sortable=10**9, threads=1)
    with (
        pytest.raises(KnowledgeBaseError, match=r"no room to plan the encoding of .* make room on this disk"),
        plan_parts(
            tmp_path / "out", {"t": pieces(rows, 60_000)}, identity="i", rows_per_part=8, limits=limits
        ),
    ):
        pass
    assert not (tmp_path / "out").exists()


def test_parts_have_the_names_of_earlier_versions(tmp_path: Path) -> None:
    """Names hash what a part holds and how it was planned; with others every store would be encoded again."""
    run(tmp_path, LetterCounter())
    pictures = [picture(f"p{n}", f"/media/{n}.png", f"{n % 3:064x}") for n in range(5)]
    run(tmp_path, LetterCounter(modalities=frozenset({"image"})), {"samples": pictures})
    assert list(hashes(tmp_path)) == [
        "one/part-00000-d401616e.parquet",
        "one/part-00001-c528f181.parquet",
        "one/part-00002-59c2b204.parquet",
        "one/part-00003-73f66eb5.parquet",
        "samples/part-00000-34193e5a.parquet",
        "two/part-00000-9021ba72.parquet",
        "two/part-00001-2be9fb61.parquet",
        "two/part-00002-14d192fc.parquet",
        "two/part-00003-c7bdcf74.parquet",
    ]
