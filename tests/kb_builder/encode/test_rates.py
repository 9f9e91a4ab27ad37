"""Rates: parts of some seconds, which every run, job and engine divides alike once their rates are kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import KnowledgeBaseError
from data.readers.sandbox.budget import FileBudget
from data.work import Carry, Work, here
from kb_builder.encode import rates
from kb_builder.encode.rates import MOST_ROWS, TEXTS, Rate, RateWork, rows_by_seconds
from kb_builder.encode.rows import WantedVectors
from kb_builder.settings import Encode
from tests.elsewhere import Elsewhere, all_files
from tests.kb_builder.encode.letters import LetterCounter, picture, row, wanted

TEXT_ROWS = [row(f"{n:03d}", f"text {n % 40} {'z' * (n % 7)}") for n in range(200)]
PICTURES = [picture(f"p{n:02d}", f"/media/{n}.png", f"{n % 9:064x}") for n in range(20)]
SOUNDS = [replace(each, id=f"s{each.id}", group="audio") for each in PICTURES]


def load_letters() -> LetterCounter:
    return LetterCounter()


def sized(
    folder: Path,
    pieces: Iterable[WantedVectors],
    kinds: set[str],
    *,
    seconds: float = 0.01,
    encoder: LetterCounter | None = None,
    carry: Carry = here,
) -> tuple[dict[str, int], str]:
    """The rows of each kind, and what is told."""
    load = load_letters if encoder is None else lambda: encoder
    work = RateWork(load, "letters-1", Encode(batch_size=3, part_seconds=seconds), FileBudget())
    return rows_by_seconds(folder, kinds, lambda: pieces, work, carry)


@pytest.mark.parametrize("engine", [here, Elsewhere(0).map], ids=["here", "elsewhere"])
def test_a_rate_is_measured_once_and_kept(tmp_path: Path, engine: Carry) -> None:
    """Who comes later measures nothing, and other seconds are other rows by the same rate."""
    rows, told = sized(tmp_path, [wanted(TEXT_ROWS)], {TEXTS}, carry=engine)
    assert rows[TEXTS] >= 1 and "measured now: texts" in told
    kept = json.loads((tmp_path / "rate-texts.json").read_text(encoding="utf-8"))
    assert kept["contents"] >= 1 and "torch" in kept["hardware"]
    assert [path.name for path in tmp_path.iterdir()] == ["rate-texts.json"]
    encoder = LetterCounter()
    again, told = sized(tmp_path, [], {TEXTS}, encoder=encoder)
    assert again == rows and not encoder.seen and "by the rates that are kept" in told
    (tmp_path / "rate-texts.json").write_text('{"nanoseconds": 7000000, "contents": 9, "hardware": "x"}')
    assert sized(tmp_path, [], {TEXTS}, seconds=0.7)[0] == {TEXTS: 100}
    assert sized(tmp_path, [], {TEXTS}, seconds=60)[0] == {TEXTS: 8571}


def test_the_first_of_several_decides(tmp_path: Path) -> None:
    """All have measured before any keeps its rate: all read the same one, and no other file is left."""
    count = 8
    together = threading.Barrier(count)

    def job(number: int) -> int:
        def carry(work: Work, orders: Iterable[Any]) -> Generator[Any]:
            together.wait(60)
            yield TEXTS, Rate(1_000_000 * (number + 1), 1, f"machine {number}")

        return sized(tmp_path, [wanted(TEXT_ROWS)], {TEXTS}, seconds=1.0, carry=carry)[0][TEXTS]

    with ThreadPoolExecutor(count) as pool:
        found = set(pool.map(job, range(count)))
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert found == {10**9 // kept["nanoseconds"]}


def test_each_modality_has_its_rate(tmp_path: Path) -> None:
    """One that comes later is measured alone; one that has no samples gets none."""
    rows, told = sized(tmp_path, [wanted(PICTURES)], {"image", "audio"})
    assert rows.keys() == {"image"} and "measured now: image;" in told
    before = all_files(tmp_path)
    both = [wanted(PICTURES), wanted(SOUNDS)]
    later, told = sized(tmp_path, both, {"image", "audio"})
    assert later["image"] == rows["image"] and later["audio"] >= 1 and "measured now: audio;" in told
    assert all_files(tmp_path).items() >= before.items() and len(list(tmp_path.iterdir())) == 2


def test_what_is_measured_does_not_depend_on_how_rows_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece, or in many in another order: the contents with the smallest hashes."""
    monkeypatch.setattr(rates, "_CONTENTS", 10)
    found = []
    for name, size, way in (("one", 200, 1), ("many", 7, -1)):
        engine = Elsewhere(0)
        some = [wanted(TEXT_ROWS[start : start + size]) for start in range(0, 200, size)][::way]
        sized(tmp_path / name, some, {TEXTS}, carry=engine.map)
        (order,) = engine.orders
        found.append([item.source for item in order.items])
    assert found[0] == found[1] and len(set(found[0])) == 10


def test_a_part_has_a_row_and_fits_into_memory() -> None:
    """Whatever the rate; the bound is told."""
    assert Rate(10**12, 1, "slow").rows(1.0) == 1
    assert Rate(1, 1, "fast").rows(60.0) == MOST_ROWS
    assert f"{MOST_ROWS:,} (the most) texts" in rates._told({TEXTS: Rate(1, 1, "fast")}, [], 60.0)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"nanoseconds": 0, "contents": 1, "hardware": "x"}'])
def test_a_damaged_rate_is_not_measured_again_in_silence(tmp_path: Path, content: str) -> None:
    """The error says what deleting it does."""
    (tmp_path / "rate-texts.json").write_text(content, encoding="utf-8")
    with pytest.raises(KnowledgeBaseError, match=r"rate-texts\.json: damaged; delete it, and the next run"):
        sized(tmp_path, [wanted(TEXT_ROWS)], {TEXTS})


def test_another_encoder_elsewhere_measures_nothing(tmp_path: Path) -> None:
    """A machine with other weights is refused, as where it makes parts."""
    with pytest.raises(KnowledgeBaseError, match="has the identity other"):
        sized(tmp_path, [wanted(TEXT_ROWS)], {TEXTS}, encoder=LetterCounter(identity="other"))
