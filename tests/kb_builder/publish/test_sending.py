"""A knowledge base is sent while it is made: what is there before the end, and what a cut line does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError, KnowledgeBaseError
from data.seals import is_sealed, seal
from kb_builder.ask.ledger import Entry, iter_entries, open_ledger
from kb_builder.ask.write_offs import write_off, written_off
from kb_builder.publish import segments, sending, writer
from kb_builder.publish.fetch import FetchedVersion, fetch
from kb_builder.publish.held import require_answers
from kb_builder.publish.place import Place, open_place
from kb_builder.publish.publish import publish
from kb_builder.publish.segments import beside_the_writer, cuts
from kb_builder.publish.sending import Sending
from kb_builder.publish.versions import read_newest, version_numbers
from kb_builder.publish.writer import hold
from tests.kb_builder.publish.conftest import BUCKET, Cable, s3_environment, until

ENTRY = Entry("k", '{"a": 1}', "{}", None, 1, 1.5, 7, "local", "local", "test", None, "b")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something is sent all the time, in small segments."""
    monkeypatch.setattr(sending, "EVERY_S", 0.02)
    monkeypatch.setattr(segments, "ROWS", 30)


def record(kb: Path, start: int, end: int, *, failed: bool = False) -> None:
    """Answer some requests, or let them fail for good, and write one off."""

    async def run() -> None:
        async with open_ledger(kb) as ledger:
            for number in range(start, end):
                answer, error = (None, "too long") if failed else (f"é {number}", None)
                ledger.submit(
                    replace(
                        ENTRY, key=f"k{number}", answer=answer, error=error, created_at=number * 1_000_000
                    )
                )
            await ledger.write(lambda connection: write_off(connection, usd=0.5))

    asyncio.run(run())


@contextmanager
def sent_to(place: Place, kb: Path, said: list[str] | None = None) -> Iterator[Sending]:
    """As a run does."""
    say: Callable[[str], None] = (said if said is not None else []).append
    with hold(place, kb, say) as lease, Sending(kb, lease, say) as sending:
        yield sending


def rows(place: Place) -> int:
    """How many requests have appeared at a place."""
    try:
        newest, _ = read_newest(place)
    except InputError:
        return 0
    return sum(each.rows for each in newest.ledger.tables["entries"]) if newest.ledger else 0


def same_ledger(kb: Path, other: Path) -> bool:
    """Whether two ledgers hold the same, the table of write-offs included."""
    sums = []
    for each in (kb, other):
        with closing(sqlite3.connect(each / "ledger.sqlite")) as ledger:
            sums.append(written_off(ledger))
    return [*map(astuple, iter_entries(kb))] == [*map(astuple, iter_entries(other))] and sums[0] == sums[1]


def test_what_a_run_has_sent_is_there_before_it_ends(
    browsed_kb: Path, place_name: str, tmp_path: Path
) -> None:
    """All answers so far and the files of the last stage; `fetch` takes them, and says of when they are."""
    place = open_place(place_name)
    with sent_to(place, browsed_kb) as at_work:
        for end in (10, 47, 100):
            record(browsed_kb, 0, end)
            until(lambda end=end: rows(place) == end, f"{end} requests at the place")  # type: ignore[misc]
        (browsed_kb / "stage.json").write_text("{}")
        at_work.stage_done()
        until(lambda: "stage.json" in read_newest(place)[0].files, "the files of the stage")
        assert version_numbers(place) == []
        found = fetch(place, tmp_path / "new")
    assert (found.unfinished, found.requests, found.version) == (True, 100, 0)
    words = (
        "what a run that has not ended has sent to .*, before any version, .* and a ledger of 100 requests"
    )
    assert_told(found, rf"{words}, the newest of 1970-01-01 00:01:39 UTC; `unibind run` continues it")
    assert same_ledger(browsed_kb, tmp_path / "new")
    assert (tmp_path / "new" / "stage.json").read_text() == "{}"


def assert_told(found: FetchedVersion, pattern: str) -> None:
    """What is printed of a fetched version, in one line."""
    import re

    assert re.search(pattern, str(found)), str(found)
    assert "\n" not in str(found)


def test_the_version_at_the_end_takes_the_place_of_what_was_sent(
    browsed_kb: Path, place_name: str, tmp_path: Path
) -> None:
    """It is the one that `publish` makes; whole segments were there already."""
    place = open_place(place_name)
    with sent_to(place, browsed_kb) as at_work:
        record(browsed_kb, 0, 65)
        until(lambda: rows(place) == 65, "65 requests")
        done = at_work.publish()
    assert (done.version, done.new) == (1, True)
    assert not read_newest(place)[1]
    again = publish(browsed_kb, place)
    assert (again.version, again.new, again.uploaded) == (1, False, 0)
    found = fetch(place, tmp_path / "new")
    assert (found.unfinished, found.version, found.requests) == (False, 1, 65)


def test_rows_that_are_removed_are_removed_there(browsed_kb: Path, place_name: str, tmp_path: Path) -> None:
    """Failed requests that are asked again, whose row ids the new answers take."""
    place = open_place(place_name)
    with sent_to(place, browsed_kb):
        record(browsed_kb, 0, 40)
        record(browsed_kb, 40, 50, failed=True)
        until(lambda: rows(place) == 50, "50 requests")

        async def forget() -> None:
            async with open_ledger(browsed_kb) as ledger:
                await ledger.forget_failed()

        asyncio.run(forget())
        record(browsed_kb, 50, 55)
        record(browsed_kb, 40, 45)
    fetch(place, tmp_path / "new")
    assert same_ledger(browsed_kb, tmp_path / "new")


def test_a_ledger_that_closes_meanwhile_gets_its_checksum(browsed_kb: Path, tmp_path: Path) -> None:
    """A reader would keep its log on the disk, so the writer waits for it."""
    stop = threading.Event()
    reads = 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            with beside_the_writer(browsed_kb) as snapshot:
                reads += snapshot is not None and snapshot.growth().rows >= 0

    record(browsed_kb, 0, 1)
    seal(browsed_kb, [], "test")
    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(20):
            until(lambda before=reads: reads > before, "a read")  # type: ignore[misc]
            record(browsed_kb, number, number + 1)
            assert is_sealed(browsed_kb / "ledger.sqlite")
    finally:
        stop.set()
        thread.join()


class Line:
    """A place that cannot be reached while the line is cut."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.is_cut = False

    def __getattr__(self, name: str) -> object:
        if self.is_cut and name != "name":
            raise InputError(f"{self._place.name}: the server cannot be reached")
        return getattr(self._place, name)


def test_a_cut_line_stops_nothing(browsed_kb: Path, place_name: str, tmp_path: Path) -> None:
    """It is told once, with how much is not sent, and once when all is sent again."""
    place, said = open_place(place_name), list[str]()
    line = Line(place)
    with sent_to(line, browsed_kb, said) as at_work:  # type: ignore[arg-type]
        record(browsed_kb, 0, 20)
        until(lambda: rows(place) == 20, "20 requests")
        line.is_cut = True
        record(browsed_kb, 20, 50)
        until(lambda: said != [], "a line that tells it")
        record(browsed_kb, 50, 60)
        assert rows(place) == 20
        line.is_cut = False
        until(lambda: rows(place) == 60, "the rest")
        until(lambda: len(said) == 2, "a line that tells it")
    assert at_work.left() is None
    assert said[0].startswith(
        f"{place.name}: the server cannot be reached; 30 requests of the ledger are not"
    )
    assert said[0].endswith("the run continues and retries every 0 s")
    assert said[1] == f"{place.name}: all answers are sent again"


def test_a_line_that_stays_cut_is_told_at_the_end(browsed_kb: Path, tmp_path: Path) -> None:
    """With what is not sent, and the command that sends it; which does."""
    place, said = open_place(str(tmp_path / "place")), list[str]()
    line = Line(place)
    with sent_to(line, browsed_kb, said) as at_work:  # type: ignore[arg-type]
        line.is_cut = True
        record(browsed_kb, 0, 7)
    left = at_work.left()
    assert left is not None
    assert left.endswith(
        "7 requests of the ledger are not sent: when it can be reached again, `unibind kb publish` sends it"
    )
    assert publish(browsed_kb, place).version == 1
    assert rows(place) == 7


def test_a_real_line_is_cut_and_mended(browsed_kb: Path, s3_endpoint: str, tmp_path: Path) -> None:
    """Connections to the S3 server break, and new ones are refused, in the middle of a run."""
    cable, said = Cable(s3_endpoint), list[str]()
    try:
        with s3_environment(cable.address):
            place = open_place(f"s3://{BUCKET}/{tmp_path.name}")
            with sent_to(place, browsed_kb, said):
                record(browsed_kb, 0, 20)
                until(lambda: rows(place) == 20, "20 requests")
                cable.cut()
                record(browsed_kb, 20, 60)
                until(lambda: said != [], "a line that tells it")
                cable.mend()
                until(lambda: rows(place) == 60, "the rest")
    finally:
        cable.close()
    assert "not sent yet" in said[0]


def test_a_run_that_was_taken_over_says_so_and_goes_on(
    browsed_kb: Path, place_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it sends appears any more."""
    monkeypatch.setattr(writer, "RENEW_S", 3600.0)
    monkeypatch.setattr(writer, "LEASE_S", 0.2)
    place, said = open_place(place_name), list[str]()
    line = Line(place)
    with sent_to(line, browsed_kb, said) as at_work:  # type: ignore[arg-type]
        record(browsed_kb, 0, 5)
        until(lambda: rows(place) == 5, "5 requests")
        line.is_cut = True
        record(browsed_kb, 5, 6)
        until(lambda: len(said) == 1, "that the line is cut")
        with hold(place, tmp_path / "b"):
            line.is_cut = False
            until(lambda: len(said) == 2, "that it was taken over")
            record(browsed_kb, 6, 9)
            with pytest.raises(KnowledgeBaseError, match="has taken over"):
                at_work.publish()
        assert "stop one of them" in said[1]
    assert len(said) == 2
    assert rows(place) == 5
    left = at_work.left()
    assert left is not None
    assert "4 requests of the ledger are not sent: `unibind kb publish` can send it to another place" in left


def test_answers_that_are_lacking_here_are_not_hidden(
    browsed_kb: Path, place_name: str, tmp_path: Path
) -> None:
    """Of a run that has not ended, or a version; failed requests do not count, nor do more answers here."""
    place = open_place(place_name)
    require_answers(browsed_kb, place)  # nothing is there
    with sent_to(place, browsed_kb):
        record(browsed_kb, 0, 40)
        record(browsed_kb, 40, 50, failed=True)
    other = tmp_path / "kb"
    with pytest.raises(
        KnowledgeBaseError, match=r"holds 40 answers that .*: take them with `unibind kb fetch`"
    ):
        require_answers(other, place)
    other.mkdir()
    (other / "categories.parquet").write_bytes((browsed_kb / "categories.parquet").read_bytes())
    record(other, 10, 60)
    for action in (lambda: require_answers(other, place), lambda: publish(other, place)):
        with pytest.raises(KnowledgeBaseError, match=r"holds 10 answers that .*: move .* away and take them"):
            action()
    record(other, 0, 10)
    require_answers(other, place)
    publish(browsed_kb, place)
    require_answers(other, place)


@given(st.integers(0, 400), st.integers(1, 40))
def test_the_cuts_of_a_ledger_change_little(last: int, more: int) -> None:
    """They cover every row once, and most stay as they are when rows are added."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "ROWS", 100)
        found, later = cuts(last), cuts(last + more)
    assert [row for start, end in found for row in range(start, end)] == [*range(last + 1)]
    whole = {(start, end) for start, end in found if end - start == 100}
    assert whole <= {*later}
    assert len(found) <= len(whole) + 9 + 9 + 1
