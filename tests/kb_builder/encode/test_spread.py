"""Parts made elsewhere, or by shares: the same bytes in every file as in one process."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError, KnowledgeBaseError
from kb_builder.encode import hardware, make, parts
from kb_builder.encode.hardware import UNKNOWN, classes
from kb_builder.encode.plan import plan_parts
from kb_builder.encode.spread import PartShare, Spread
from kb_builder.store.table import part_paths, read_vectors
from tests.elsewhere import Elsewhere, all_files
from tests.kb_builder.encode.letters import TABLES, LetterCounter, Row, picture, row, run, wanted

# Each part shares a text with the one before: made one after the other, none could start before the other.
CHAIN = {
    "one": [
        row(f"{n:03d}", f"link {'y' * (link % 13)} {link}", f"{n // 8:02d}")
        for n in range(64)
        for link in [n - n // 8 * 2]
    ],
    "two": [row(f"x{n}", f"link {'y' * (n % 13)} {n}") for n in range(20)],
}
PICTURES = {
    "one": [
        *(picture(f"g{n}", f"/somewhere/{n}.png", f"good{n % 13}") for n in range(17)),
        picture("g9x", "/somewhere/unreadable.png", "h"),
    ],
    "two": [picture("x2", "/somewhere/unreadable.png", "h"), picture("x3", "/somewhere/3.png", "good3")],
}


class Portable(LetterCounter):
    """The encoder as another process gets it."""

    def __reduce__(self) -> Any:
        return Portable, ()


def load_portable() -> Portable:
    return Portable()


def elsewhere(monkeypatch: pytest.MonkeyPatch, engine: Elsewhere) -> Spread:
    """A spread over an engine, whose workers load `Portable`."""
    made = parts.PartWork
    monkeypatch.setattr(parts, "PartWork", lambda _, *rest: made(load_portable, *rest))
    return Spread(map=engine.map, elsewhere=True)


@pytest.mark.parametrize("tables", [TABLES, CHAIN, PICTURES], ids=["some shared", "chain", "pictures"])
@pytest.mark.parametrize("seed", range(3))
def test_parts_made_elsewhere_in_any_order_have_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: dict[str, list[Row]], seed: int
) -> None:
    """Every file, the notes on hardware among them; nothing but the files of the tables is left."""
    one = run(tmp_path / "one", LetterCounter(), tables)
    other = run(tmp_path / "other", LetterCounter(), tables, spread=elsewhere(monkeypatch, Elsewhere(seed)))
    assert all_files(tmp_path / "other") == all_files(tmp_path / "one")
    assert (other.counts, other.reasons) == (one.counts, one.reasons)
    assert len(list((tmp_path / "one").rglob(".*.hardware"))) == len(
        list((tmp_path / "one").rglob("*.parquet"))
    )


@pytest.mark.parametrize("stop_after", [0, 5, 9, 13])
def test_a_run_elsewhere_that_was_killed_is_resumed_in_one_process_and_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """What the killed run had encoded is not encoded again, in either wave."""
    run(tmp_path / "whole", LetterCounter(), CHAIN)
    broken = Elsewhere(1, stop_after)
    for name in ("here", "there"):
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path / name, LetterCounter(), CHAIN, spread=elsewhere(monkeypatch, broken))
    encoder = LetterCounter()
    result = run(tmp_path / "here", encoder, CHAIN)
    distinct = len({each.source for table in CHAIN.values() for each in table})
    assert result.counts.encoded == sum(encoder.seen.values()) <= distinct
    assert result.counts.encoded < distinct or stop_after == 0
    run(tmp_path / "there", LetterCounter(), CHAIN, spread=elsewhere(monkeypatch, Elsewhere(2)))
    assert all_files(tmp_path / "here") == all_files(tmp_path / "there") == all_files(tmp_path / "whole")


def test_parts_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chain of parts, all are encoded in the first wave; the second encodes nothing."""
    engine = Elsewhere(0)
    run(tmp_path, LetterCounter(), CHAIN, spread=elsewhere(monkeypatch, engine))
    whole = [order.whole for order in engine.orders]
    first = whole.index(True, whole.index(False))
    assert not any(whole[1:first]) and all(whole[first:])


def test_an_order_holds_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a path and a name, however many rows its part has."""
    engine = Elsewhere(0)
    run(tmp_path, LetterCounter(), TABLES, spread=elsewhere(monkeypatch, engine))
    assert max(len(pickle.dumps(order)) for order in engine.orders) < 600


def test_another_encoder_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with other weights makes no part."""
    encoder = LetterCounter(identity="letters of the driver")
    with pytest.raises(KnowledgeBaseError, match="identity letters-1 here, and letters of t where"):
        run(tmp_path, encoder, spread=elsewhere(monkeypatch, Elsewhere(0)))


@pytest.mark.parametrize("tables", [TABLES, CHAIN, PICTURES], ids=["some shared", "chain", "pictures"])
@pytest.mark.parametrize("of", [1, 3, 40])
def test_shares_leave_what_a_run_commits(tmp_path: Path, tables: dict[str, list[Row]], of: int) -> None:
    """In any order, each once or twice: the run that follows encodes nothing and has the same bytes."""
    run(tmp_path / "one", LetterCounter(), tables)
    numbers = [*range(1, of + 1), 1]
    random.Random(of).shuffle(numbers)
    seen = 0
    for number in numbers:
        result = run(tmp_path / "shares", LetterCounter(), tables, spread=Spread(share=PartShare(number, of)))
        seen += result.counts.encoded
        assert not list((tmp_path / "shares").rglob("manifest.json"))
    last = run(tmp_path / "shares", LetterCounter(), tables)
    assert all_files(tmp_path / "shares") == all_files(tmp_path / "one")
    assert (seen, last.counts.encoded) == (last.counts.distinct - (tables is PICTURES), 0)


def test_a_share_that_is_missing_or_was_killed_is_made_by_the_run(tmp_path: Path) -> None:
    """The run names what was missing; a share that was killed and run again changes nothing."""
    run(tmp_path / "one", LetterCounter())
    folder = tmp_path / "shares"
    with pytest.raises(RuntimeError, match="killed"):
        run(folder, LetterCounter(fail_after=4), spread=Spread(share=PartShare(1, 3)))
    run(folder, LetterCounter(), spread=Spread(share=PartShare(1, 3)))
    run(folder, LetterCounter(), spread=Spread(share=PartShare(2, 3)))
    result = run(folder, LetterCounter())
    assert all_files(folder) == all_files(tmp_path / "one")
    (note,) = result.notes
    assert "parts were there from part jobs or a run that was stopped" in note and "one 2" in note
    assert result.counts.encoded > 0
    assert run(folder, LetterCounter()).notes == ()


def test_a_share_keeps_the_table_that_is_served(tmp_path: Path) -> None:
    """While shares of a changed plan are made, readers see the old table."""
    run(tmp_path, LetterCounter())
    before = {name: read_vectors(tmp_path / name).ids for name in TABLES}
    changed = TABLES | {"one": [replace(each, id=f"n{each.id}") for each in TABLES["one"]]}
    for number in (1, 2):
        run(tmp_path, LetterCounter(), changed, spread=Spread(share=PartShare(number, 2)))
        assert {name: read_vectors(tmp_path / name).ids for name in TABLES} == before
    assert run(tmp_path, LetterCounter(), changed).counts.encoded == 0
    assert read_vectors(tmp_path / "one").ids[0].startswith("na")


def test_the_class_of_hardware_stands_beside_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts made on two classes are told apart, told, and refused where one class is asked for."""
    run(tmp_path, LetterCounter())
    (own,) = classes(tmp_path / "one", [path.name for path in part_paths(tmp_path / "one")])
    assert "torch" in own
    lost = part_paths(tmp_path / "one")[1]
    lost.unlink()
    monkeypatch.setattr(parts, "hardware_class", lambda *_: "Another GPU, torch 1")
    monkeypatch.setattr(make, "note_class", hardware.note_class)
    with pytest.raises(InputError, match=r"1 by Another GPU, torch 1; 3 by .*same_hardware"):
        run(tmp_path, LetterCounter(), spread=Spread(same_hardware=True))
    result = run(tmp_path, LetterCounter())
    assert any("several classes of hardware: 1 by Another GPU" in note for note in result.notes)
    names = [path.name for path in part_paths(tmp_path / "one")]
    found = classes(tmp_path / "one", names)
    assert found["Another GPU, torch 1"] == [lost.name] and len(found[own]) == len(names) - 1
    for note in (tmp_path / "one").glob(".*.hardware"):
        note.unlink()
    assert list(classes(tmp_path / "one", names)) == [UNKNOWN]


def test_parts_that_are_too_small_are_told(tmp_path: Path) -> None:
    """Of much work in parts of less than five seconds: what rows would take a minute; else nothing."""
    table = wanted([row(str(n), f"text {n}") for n in range(40)])
    with plan_parts(tmp_path / "letters", {"one": [table]}, identity="i", rows_per_part=8) as plan:
        assert parts.advice_on_size([0.5] * 2000, plan, "texts") == (
            "letters: 2,000 parts took 0.5 s each; with larger ones the driver has less to do: [encode]"
            " texts_per_part = 960 makes them of about 60 s"
        )
        assert parts.advice_on_size([5.0] * 2000, plan, "texts") is None
        assert parts.advice_on_size([0.5] * 20, plan, "texts") is None
        assert parts.advice_on_size([], plan, "texts") is None
        told = parts.advice_on_size([0.5] * 2000, plan, "texts", 30.0)
        assert told is not None and "0.5 s each, not 30: their rates" in told
        assert parts.advice_on_size([0.5] * 2000, plan, "texts", 1.0) is None
