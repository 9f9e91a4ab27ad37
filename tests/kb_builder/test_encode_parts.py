"""Parts of the store: planned from rows, made once, resumed bit for bit. The encoder is a small real one."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import KnowledgeBaseError, SampleError
from data.files import hash_file
from data.modality import Modality
from kb_builder.encode_parts import Encoded, Row, encode_parts, plan_parts
from kb_builder.store import read_metadata, read_vectors


@dataclass
class LetterCounter:
    """Counts letters; the sum over its batch leaks into every row, as padding does, at the last bits.

    Remembers what it was asked, so that tests see what was encoded and how often.
    """

    name: str = "letters"
    identity: str = "letters-1"
    dim: int = 26
    modalities: frozenset[str] = frozenset({"text"})
    licence: str = "MIT"
    parameters: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    fail_after: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, modality: Modality, source: Path | str) -> str:
        if "unreadable" in str(source):
            raise SampleError(f"{source}: cannot be read; export it again")
        return str(source)

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        with self.lock:
            self.seen.update(batch)
            if self.fail_after is not None and sum(self.seen.values()) > self.fail_after:
                raise RuntimeError("killed")
        counts = np.array([[1 + text.count(chr(97 + k)) for k in range(26)] for text in batch], np.float64)
        counts += 1e-7 * sum(map(len, batch))
        vectors = counts.reshape(-1, 26) / np.linalg.norm(counts.reshape(-1, 26), axis=1, keepdims=True)
        return vectors.astype(np.float32)


def row(name: str, text: str, group: str = "g") -> Row:
    return Row(name, group, "text", text, text)


TABLES = {
    "one": [row(f"a{n:02d}", f"text {'z' * (n * 7 % 11)} {n % 20}", "ab"[n % 2]) for n in range(30)],
    "two": [row(f"b{n:02d}", f"text {'z' * (n * 7 % 11)} {n % 25}") for n in range(25)],
    "none": [],
}


def run(folder: Path, encoder: LetterCounter, tables: dict[str, list[Row]] = TABLES) -> Encoded:
    parts = plan_parts(folder, tables, identity=encoder.identity, rows_per_part=8)
    return encode_parts(parts, encoder, batch_size=3, what="texts")


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hash_file(path) for path in sorted(folder.rglob("*.parquet"))
    }


def test_every_row_gets_its_vector_and_each_text_is_encoded_once(tmp_path: Path) -> None:
    """All rows of all tables are there; equal texts, in whatever part, went through the encoder once."""
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


def test_parts_have_fixed_boundaries(tmp_path: Path) -> None:
    """Rows sorted by group and id are cut every eight, whatever their order was."""
    shuffled = {name: table[::-1] for name, table in TABLES.items()}
    there, here = tmp_path / "there", tmp_path / "here"
    run(there, LetterCounter())
    run(here, LetterCounter(), shuffled)
    assert hashes(there) == hashes(here)
    assert len(list((here / "one").iterdir())) == 4


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


@pytest.mark.parametrize(
    "lost", [["one/part-00000"], ["one/part-00002", "two/part-00001"], ["two/part-00000"]]
)
def test_lost_parts_are_made_again_with_the_same_bytes(tmp_path: Path, lost: list[str]) -> None:
    """Deleted parts come back bit for bit, whether they lend texts or borrow them."""
    run(tmp_path, LetterCounter())
    before = hashes(tmp_path)
    for name in lost:
        (tmp_path / f"{name}.parquet").unlink()
    encoder = LetterCounter()
    run(tmp_path, encoder)
    assert hashes(tmp_path) == before
    assert len(encoder.seen) < 20


def test_a_damaged_part_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped bit is noticed by the page's checksum, said, and mended."""
    run(tmp_path, LetterCounter())
    before = hashes(tmp_path)
    path = tmp_path / "one" / "part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[content.index(read_vectors(tmp_path / "one").vectors_ND[8:12].tobytes())] ^= 1
    path.write_bytes(content)
    run(tmp_path, LetterCounter())
    assert hashes(tmp_path) == before
    assert "made again" in caplog.text


def test_a_changed_text_is_encoded_again(tmp_path: Path) -> None:
    """One changed text costs its part and the parts that borrow from it, and no old vector stays."""
    run(tmp_path, LetterCounter())
    changed = TABLES | {"two": [*TABLES["two"][:-1], row("b24", "qqqq quite another text")]}
    encoder = LetterCounter()
    run(tmp_path, encoder, changed)
    assert encoder.seen["qqqq quite another text"] == 1
    stored = read_vectors(tmp_path / "two")
    expected = LetterCounter().encode(["qqqq quite another text"])[0]
    np.testing.assert_allclose(stored.vectors_ND[stored.ids.index("b24")], expected, atol=1e-5)
    run(tmp_path / "fresh", LetterCounter(), changed)
    assert hashes(tmp_path / "fresh") == {k: v for k, v in hashes(tmp_path).items() if "fresh" not in k}


def test_another_encoder_reuses_nothing(tmp_path: Path) -> None:
    """A changed identity makes every part again."""
    run(tmp_path, LetterCounter())
    result = run(tmp_path, LetterCounter(identity="letters-2"))
    assert result.counts.reused == 0


def test_fewer_rows_leave_no_stale_part(tmp_path: Path) -> None:
    """Parts that the plan no longer has are removed."""
    run(tmp_path, LetterCounter())
    run(tmp_path, LetterCounter(), TABLES | {"one": TABLES["one"][:5]})
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["part-00000.parquet"]
    assert read_vectors(tmp_path / "one").vectors_ND.shape == (5, 26)


def test_unreadable_files_are_quarantined_also_when_resumed(tmp_path: Path) -> None:
    """A file that cannot be read gets a reason, not a vector, in every part that names it, every time."""
    bad = Row("x1", "a", "image", Path("/somewhere/unreadable.png"), "image:h", label="unreadable.png")
    tables = {"one": [*TABLES["one"], bad], "two": [*TABLES["two"], replace(bad, id="x2")]}
    first = run(tmp_path, LetterCounter(), tables)
    reason = "unreadable.png: cannot be read; export it again"
    assert first.reasons == {"x1": reason, "x2": reason}
    assert first.counts.quarantined == 2
    assert not {"x1", "x2"} & {*read_vectors(tmp_path / "one").ids, *read_vectors(tmp_path / "two").ids}
    again = run(tmp_path, LetterCounter(), tables)
    assert again.reasons == first.reasons
    assert again.counts.encoded == 0
    noted = [
        json.loads(read_metadata(path)["unibind_rejects"]) for path in sorted((tmp_path / "one").iterdir())
    ]
    assert {"image:h": reason} in noted


def test_a_file_that_was_put_back_gets_its_vector(tmp_path: Path) -> None:
    """A reject is looked at again by the next run; its part ends as if it had never been missing."""
    gone = Row("x1", "a", "image", "unreadable now", "image:h", label="x1.png")
    back = replace(gone, source="readable now")
    run(tmp_path / "kb", LetterCounter(), {"one": [*TABLES["one"], gone]})
    result = run(tmp_path / "kb", LetterCounter(), {"one": [*TABLES["one"], back]})
    assert result.counts.quarantined == 0
    assert 0 < result.counts.encoded < 20
    run(tmp_path / "other", LetterCounter(), {"one": [*TABLES["one"], back]})
    assert hashes(tmp_path / "kb") == hashes(tmp_path / "other")


def test_a_part_of_unreadable_files_only(tmp_path: Path) -> None:
    """Where nothing can be read, an empty part remains."""
    rows = [Row(f"x{n}", "a", "image", Path(f"unreadable{n}"), f"h{n}") for n in range(4)]
    result = run(tmp_path, LetterCounter(), {"one": rows})
    assert (result.counts.encoded, result.counts.quarantined) == (0, 4)
    assert read_vectors(tmp_path / "one").vectors_ND.shape == (0, 26)


def test_a_duplicate_id_is_refused_by_name(tmp_path: Path) -> None:
    """One id for two rows is a damaged table."""
    with pytest.raises(KnowledgeBaseError, match="'a' comes twice"):
        run(tmp_path, LetterCounter(), {"one": [row("a", "x"), row("a", "y")]})
