"""Requests and tokens per minute, by a clock that the tests set."""

from __future__ import annotations

from kb_builder.ask.limits import Rates
from kb_builder.ask.request import Limits


def send_all(rates: Rates, seconds: float, *, tokens: float = 0.0, used: float | None = None) -> int:
    """How many requests go in so many seconds, each home at once."""
    now = 0.0
    count = 0
    while True:
        wait = rates.wait(now, tokens)
        if wait > 0.0:
            now += wait
            assert rates.wait(now, tokens) < 1e-6  # told to wait so long, it may go then
        if now > seconds:
            return count
        rates.take(tokens)
        rates.settle(tokens, used)
        count += 1


def test_nothing_is_held_back_without_limits() -> None:
    """Neither settings nor headers: as fast as it goes, and tokens need not be counted."""
    rates = Rates(requests_per_minute=None, tokens_per_minute=None)
    for _ in range(10_000):
        assert rates.wait(0.0, 1e6) == 0.0
        rates.take(1e6)
    assert not rates.counts_tokens


def test_requests_per_minute_hold_in_every_minute() -> None:
    """120 a minute: two go at once, then one each half second."""
    assert 600 <= send_all(Rates(requests_per_minute=120, tokens_per_minute=None), 300.0) <= 602
    assert send_all(Rates(requests_per_minute=1, tokens_per_minute=None), 179.0) == 3


def test_tokens_per_minute_are_reserved_and_corrected() -> None:
    """An estimate of 100 tokens lets 60 a minute through; answers that used 50 make room for twice that."""
    assert 60 <= send_all(Rates(requests_per_minute=None, tokens_per_minute=6000), 60.0, tokens=100.0) <= 62
    rates = Rates(requests_per_minute=None, tokens_per_minute=6000)
    assert 119 <= send_all(rates, 60.0, tokens=100.0, used=50.0) <= 123


def test_a_request_larger_than_a_seconds_worth_goes_and_is_paid_off() -> None:
    """6,000 tokens a minute and requests of 3,000: one each half minute, none never."""
    assert send_all(Rates(requests_per_minute=None, tokens_per_minute=6000), 120.0, tokens=3000.0) in (5, 6)


def test_headers_set_the_rate() -> None:
    """30 of 60 left, full in 30 s: those 30 go at once, then one each second."""
    rates = Rates(requests_per_minute=None, tokens_per_minute=None)
    rates.learn(0.0, Limits(requests=60, requests_left=30, reset_requests_s=30.0))
    assert 60 <= send_all(rates, 30.0) <= 62


def test_headers_do_not_know_what_is_in_flight() -> None:
    """Of 3 that are left, 2 are on their way: one may go."""
    rates = Rates(requests_per_minute=None, tokens_per_minute=None)
    rates.take(0.0)
    rates.take(0.0)
    rates.learn(0.0, Limits(requests=60, requests_left=3, reset_requests_s=57.0))
    assert rates.wait(0.0, 0.0) == 0.0
    rates.take(0.0)
    assert 0.9 < rates.wait(0.0, 0.0) <= 1.1


def test_none_left_waits_for_the_reset() -> None:
    """Tokens of a 429: nothing goes until some are back, at the rate of the headers."""
    rates = Rates(requests_per_minute=None, tokens_per_minute=None)
    rates.learn(10.0, Limits(tokens=60_000, tokens_left=0, reset_tokens_s=60.0))
    assert rates.counts_tokens
    assert abs(rates.wait(10.0, 2000.0) - 2.0) < 1e-9
    assert rates.wait(12.0, 2000.0) == 0.0


def test_settings_win_over_headers() -> None:
    """Who sets a rate means it."""
    rates = Rates(requests_per_minute=60, tokens_per_minute=None)
    rates.learn(0.0, Limits(requests=100_000, requests_left=99_999, reset_requests_s=0.001))
    assert send_all(rates, 60.0) <= 61


def test_headers_that_say_half_change_nothing() -> None:
    """A limit without what is left of it is no rate; one without its reset is per minute."""
    rates = Rates(requests_per_minute=None, tokens_per_minute=None)
    rates.learn(0.0, Limits(requests=60))
    assert rates.wait(0.0, 0.0) == 0.0
    rates.learn(0.0, Limits(requests=60, requests_left=0))
    assert abs(rates.wait(0.0, 0.0) - 1.0) < 1e-9
