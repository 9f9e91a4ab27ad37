"""When nobody sends, by a clock that the tests set."""

from __future__ import annotations

import logging

import pytest

from data.errors import RunError
from kb_builder.ask.breaker import Breaker


def fail(breaker: Breaker, count: int, *, now: float = 0.0, most: int = 4) -> None:
    """So many failures in a row."""
    for _ in range(count):
        breaker.failed(now, "status 503", most=most, probe=False)


def test_a_run_of_failures_opens_it() -> None:
    """Twenty, or two per call that may be in flight; an answer in between starts the count again."""
    breaker = Breaker(outage_s=1800.0)
    fail(breaker, 19)
    breaker.answered(0.0)
    fail(breaker, 19)
    assert breaker.wait(0.0) == 0.0
    fail(breaker, 1)
    assert breaker.wait(0.0) == 1.0
    wide = Breaker(outage_s=1800.0)
    fail(wide, 511, most=256)
    assert wide.wait(0.0) == 0.0
    fail(wide, 1, most=256)
    assert wide.wait(0.0) == 1.0


def test_one_probe_at_a_time_with_growing_pauses() -> None:
    """1, 2, 4 ... 60 s; while the probe is out nobody else goes."""
    breaker = Breaker(outage_s=1e6)
    fail(breaker, 20)
    now, pauses = 0.0, []
    for _ in range(9):
        pauses.append(breaker.wait(now))
        now += pauses[-1]
        assert breaker.wait(now) == 0.0
        assert breaker.sent()
        assert breaker.wait(now) == float("inf")
        breaker.failed(now, "status 503", most=4, probe=False)  # a call of before comes home: no news
        assert breaker.wait(now) == float("inf")
        breaker.failed(now, "status 503", most=4, probe=True)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_it_closes_by_itself_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it opens, one when it closes, and the next outage starts with a short pause again."""
    caplog.set_level(logging.INFO)
    breaker = Breaker(outage_s=1800.0)
    fail(breaker, 60)
    assert breaker.paused(0.5) == "status 503"
    assert breaker.sent()
    breaker.failed(1.0, "status 503", most=4, probe=True)
    breaker.answered(3.0)
    breaker.answered(3.1)
    assert breaker.wait(3.1) == 0.0 and breaker.paused(3.1) is None
    assert not breaker.sent()
    assert len(caplog.records) == 2
    fail(breaker, 20, now=4.0)
    assert breaker.wait(4.0) == 1.0


def test_the_requests_clock_stands_still_while_all_are_paused() -> None:
    """Neither an outage nor a Retry-After counts against a request, and overlapping ones count once."""
    breaker = Breaker(outage_s=1800.0)
    assert breaker.clock(100.0) == 100.0
    breaker.retry_after(100.0, 10.0, "429")
    assert breaker.clock(105.0) == breaker.clock(110.0) == 100.0
    assert breaker.clock(111.0) == 101.0
    fail(breaker, 20, now=120.0)
    breaker.retry_after(130.0, 5.0, "429")
    assert breaker.clock(150.0) == 110.0
    breaker.answered(160.0)
    assert breaker.clock(165.0) == 115.0


def test_a_retry_after_holds_in_an_outage_too() -> None:
    """A late answer closes the breaker; who was told to wait still waits."""
    breaker = Breaker(outage_s=1800.0)
    fail(breaker, 20)
    breaker.retry_after(0.0, 10.0, "429")
    breaker.retry_after(0.0, 5.0, "429")  # a shorter one takes nothing back
    breaker.answered(4.0)
    assert breaker.wait(4.0) == 6.0
    assert breaker.clock(12.0) == 2.0


def test_a_retry_after_longer_than_an_outage_stops_the_run() -> None:
    """It says when to come back instead of sleeping into the next day."""
    breaker = Breaker(outage_s=1800.0)
    with pytest.raises(RunError, match=r"3600 s.*run again after 20\d\d-\d\d-\d\d \d\d:\d\d UTC"):
        breaker.retry_after(0.0, 3600.0, "status 429")


def test_an_outage_that_lasts_stops_the_run() -> None:
    """Counted from the first failure after the last answer, not from the run's start."""
    breaker = Breaker(outage_s=60.0)
    breaker.answered(1000.0)
    fail(breaker, 20, now=2000.0)
    breaker.failed(2059.0, "status 503", most=4, probe=True)
    with pytest.raises(RunError, match=r"no answer for 60 s.*status 503; run again"):
        breaker.failed(2060.0, "status 503", most=4, probe=True)


def test_it_can_be_opened_by_hand() -> None:
    """A request whose deadline is over while nobody is answered says as much as twenty failures."""
    breaker = Breaker(outage_s=60.0, first_s=0.5)
    breaker.trip(0.0, "status 503")
    breaker.trip(0.1, "status 503")
    assert breaker.wait(0.1) == 0.4
