"""Parts of the store: planned from rows, made once, resumed bit for bit. The encoder is a small real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import KnowledgeBaseError
from data.files import hash_file
from kb_builder.store.shards import inspect_shard
from kb_builder.store.table import part_paths, read_vectors
from tests.kb_builder.encode.letters import TABLES, LetterCounter, hashes, picture, row, run


def part_names(folder: Path) -> list[str]:
    return [path.name for path in part_paths(folder)]


def test_every_row_gets_its_vector_and_each_text_is_encoded_once(tmp_path: Path) -> None:
    """All rows of all tables are there; equal texts, of any part, went through the encoder once."""
    encoder = LetterCounter()
    result = run(tmp_path, encoder)
    distinct = {each.source for table in TABLES.values() for each in table}
    assert set(encoder.seen) == distinct and set(encoder.seen.values()) == {1}
    assert result.counts.distinct == result.counts.encoded == len(distinct)
    for name, table in TABLES.items():
        stored = read_vectors(tmp_path / name)
        assert sorted(stored.ids) == [each.id for each in table]
        by_id = dict(zip(stored.ids, stored.vectors_ND, strict=True))
        for each in table:
            np.testing.assert_allclose(
                by_id[each.id], LetterCounter().encode([str(each.source)])[0], atol=1e-5
            )
    assert read_vectors(tmp_path / "none").vectors_ND.shape == (0, 26)


def test_parts_follow_from_the_rows_alone(tmp_path: Path) -> None:
    """The same rows in another order give the same files; a group of 15 is cut, two of 3 share a part."""
    shuffled = {name: table[::-1] for name, table in TABLES.items()}
    there, here = tmp_path / "there", tmp_path / "here"
    run(there, LetterCounter())
    run(here, LetterCounter(), shuffled)
    assert hashes(there) == hashes(here)
    groups = [set(inspect_shard(path).groups.to_pylist()) for path in part_paths(here / "one")]
    assert groups == [{"a"}, {"a"}, {"b"}, {"b"}]


def test_a_second_run_encodes_nothing(tmp_path: Path) -> None:
    """Finished parts are recognised and counted as reused."""
    run(tmp_path, LetterCounter())
    before = hashes(tmp_path)
    encoder = LetterCounter()
    result = run(tmp_path, encoder)
    assert not encoder.seen
    assert (result.counts.encoded, result.counts.reused) == (0, 55)
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("fail_after", [0, 3, 10, 20])
def test_a_broken_run_ends_with_the_same_bytes(tmp_path: Path, fail_after: int) -> None:
    """Wherever a run broke, resuming it gives what an undisturbed run gives."""
    run(tmp_path / "whole", LetterCounter())
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "broken", LetterCounter(fail_after=fail_after))
    run(tmp_path / "broken", LetterCounter())
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("lost", [[("one", 0)], [("one", 2), ("two", 1)], [("two", 0)]], ids=str)
def test_lost_parts_are_made_again_with_the_same_bytes(tmp_path: Path, lost: list[tuple[str, int]]) -> None:
    """Deleted parts come back bit for bit, whether they lend texts or borrow them."""
    run(tmp_path, LetterCounter())
    before = hashes(tmp_path)
    for table, number in lost:
        part_paths(tmp_path / table)[number].unlink()
    encoder = LetterCounter()
    run(tmp_path, encoder)
    assert hashes(tmp_path) == before
    assert len(encoder.seen) < 20


def test_a_damaged_part_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped bit fails the page's checksum, is reported, and the vectors are encoded again."""
    run(tmp_path, LetterCounter())
    before = hashes(tmp_path)
    path = part_paths(tmp_path / "one")[1]
    content = bytearray(path.read_bytes())
    content[content.index(read_vectors(tmp_path / "one").vectors_ND[8:12].tobytes())] ^= 1
    path.write_bytes(content)
    run(tmp_path, LetterCounter())
    assert hashes(tmp_path) == before
    assert "encoded again" in caplog.text


def test_a_changed_text_is_encoded_again_and_nothing_else(tmp_path: Path) -> None:
    """One changed text costs one encoding: its part is replaced, its neighbours' vectors are taken over."""
    run(tmp_path, LetterCounter())
    changed = TABLES | {"two": [*TABLES["two"][:-1], row("b24", "qqqq quite another text")]}
    encoder = LetterCounter()
    result = run(tmp_path, encoder, changed)
    assert dict(encoder.seen) == {"qqqq quite another text": 1}
    assert (result.counts.encoded, result.counts.reused) == (1, 54)
    run(tmp_path / "fresh", LetterCounter(), changed)
    assert part_names(tmp_path / "two") == part_names(tmp_path / "fresh" / "two")
    for name in TABLES:
        stored, fresh = read_vectors(tmp_path / name), read_vectors(tmp_path / "fresh" / name)
        assert stored.ids == fresh.ids
        np.testing.assert_allclose(stored.vectors_ND, fresh.vectors_ND, atol=1e-5)


def test_an_added_group_in_front_is_encoded_alone(tmp_path: Path) -> None:
    """New rows shift the cut of all later ones, whose vectors are taken over, not encoded again."""
    run(tmp_path, LetterCounter())
    new = [row(f"Z{n}", f"new {'y' * n}", "a") for n in range(5)]
    encoder = LetterCounter()
    result = run(tmp_path, encoder, TABLES | {"one": [*new, *TABLES["one"]]})
    assert set(encoder.seen) == {each.source for each in new}
    assert result.counts.carried > 0
    assert read_vectors(tmp_path / "one").ids[:5] == [each.id for each in new]


def test_a_reader_sees_the_old_table_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """A run that broke in the midst of a change leaves the old rows readable, and none of the new."""
    run(tmp_path, LetterCounter())
    before = {name: read_vectors(tmp_path / name) for name in TABLES}
    changed = {
        "one": [row(f"c{n}", f"other {'x' * n}", "c") for n in range(20)],
        "two": TABLES["two"],
        "none": [],
    }
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, LetterCounter(fail_after=9), changed)
    assert len(list((tmp_path / "one").glob("*.parquet"))) > len(part_paths(tmp_path / "one"))
    for name, vectors in before.items():
        assert read_vectors(tmp_path / name).ids == vectors.ids
    run(tmp_path, LetterCounter(), changed)
    assert read_vectors(tmp_path / "one").ids == sorted(each.id for each in changed["one"])
    assert len(list((tmp_path / "one").glob("*.parquet"))) == len(part_paths(tmp_path / "one"))


def test_half_floats_are_the_rounded_floats(tmp_path: Path) -> None:
    """float16 keeps each vector to its rounding; a resumed run and borrowed vectors keep the bits."""
    run(tmp_path / "half", LetterCounter(), dtype="float16")
    run(tmp_path / "full", LetterCounter())
    for name in TABLES:
        half, full = read_vectors(tmp_path / "half" / name), read_vectors(tmp_path / "full" / name)
        assert np.array_equal(half.vectors_ND, full.vectors_ND.astype(np.float16).astype(np.float32))
    assert run(tmp_path / "half", LetterCounter()).counts.reused == 0


def test_another_encoder_reuses_nothing(tmp_path: Path) -> None:
    """A changed identity makes every part again."""
    run(tmp_path, LetterCounter())
    result = run(tmp_path, LetterCounter(identity="letters-2"))
    assert result.counts.reused == 0


def test_fewer_rows_leave_no_stale_part(tmp_path: Path) -> None:
    """Parts that the plan no longer has are removed."""
    run(tmp_path, LetterCounter())
    run(tmp_path, LetterCounter(), TABLES | {"one": TABLES["one"][:5]})
    assert len(list((tmp_path / "one").glob("*.parquet"))) == 1
    assert read_vectors(tmp_path / "one").vectors_ND.shape == (5, 26)


def test_unreadable_files_are_quarantined_also_when_resumed(tmp_path: Path) -> None:
    """A file that cannot be read gets a reason, not a vector, in every table that names it, every time."""
    good = [picture(f"g{n}", f"/somewhere/{n}.png", f"good{n}") for n in range(9)]
    tables = {
        "one": [*good, picture("x1", "/somewhere/unreadable.png", "h")],
        "two": [picture("x2", "/somewhere/unreadable.png", "h")],
    }
    first = run(tmp_path, LetterCounter(), tables)
    reason = "unreadable.png: cannot be read; export it again"
    assert first.reasons == {"x1": reason, "x2": reason}
    assert (first.counts.encoded, first.counts.quarantined) == (9, 2)
    assert read_vectors(tmp_path / "one").ids == [each.id for each in good]
    assert read_vectors(tmp_path / "two").vectors_ND.shape == (0, 26)
    again = run(tmp_path, LetterCounter(), tables)
    assert again.reasons == first.reasons
    assert again.counts.encoded == 0
    noted = [inspect_shard(path).metadata["unibind_rejects"] for path in part_paths(tmp_path / "one")]
    assert noted[-1] == f'{{"image:h": "{reason}"}}'


def test_a_file_that_was_put_back_gets_its_vector(tmp_path: Path) -> None:
    """A reject is looked at again by the next run; only it is encoded then."""
    others = [picture(f"g{n}", f"/somewhere/{n}.png", f"good{n}") for n in range(5)]
    gone = picture("x1", "unreadable now", "h")
    run(tmp_path, LetterCounter(), {"one": [*others, gone]})
    result = run(tmp_path, LetterCounter(), {"one": [*others, replace(gone, source="can be read")]})
    assert (result.counts.quarantined, result.counts.encoded, result.counts.carried) == (0, 1, 5)
    assert read_vectors(tmp_path / "one").ids[-1] == "x1"


def test_a_file_that_changes_between_is_not_stored_as_the_old_one(tmp_path: Path) -> None:
    """A file replaced after it was hashed, and put back later, would have the vector of the other one."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    rows = {"one": [picture("a", str(path), hash_file(path))]}
    path.write_bytes(b"new")
    with pytest.raises(KnowledgeBaseError, match=r"a\.png: changed after its content was noted"):
        run(tmp_path / "store", LetterCounter(), rows)
    path.write_bytes(b"old")
    result = run(tmp_path / "store", LetterCounter(), rows)
    assert (result.counts.encoded, result.counts.carried) == (1, 0)


def test_a_part_of_unreadable_files_only(tmp_path: Path) -> None:
    """Where nothing can be read, an empty table remains."""
    result = run(
        tmp_path, LetterCounter(), {"one": [picture(f"x{n}", f"unreadable{n}", f"h{n}") for n in range(4)]}
    )
    assert (result.counts.encoded, result.counts.quarantined) == (0, 4)
    assert read_vectors(tmp_path / "one").vectors_ND.shape == (0, 26)


def test_one_file_as_two_modalities_is_encoded_as_both(tmp_path: Path) -> None:
    """Equal bytes as an image and as a thermal picture are two contents."""
    encoder = LetterCounter()
    both = [picture("i", "a.png", "h"), replace(picture("t", "a.png", "h"), group="thermal")]
    assert run(tmp_path, encoder, {"one": both}).counts.encoded == 2
    assert read_vectors(tmp_path / "one").groups == ["image", "thermal"]


def test_a_duplicate_id_is_refused_by_name(tmp_path: Path) -> None:
    """One id for two rows is a damaged table."""
    with pytest.raises(KnowledgeBaseError, match="duplicate id 'a'"):
        run(tmp_path, LetterCounter(), {"one": [row("a", "x"), row("a", "y")]})
