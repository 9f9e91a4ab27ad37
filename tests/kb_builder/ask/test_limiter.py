"""How many calls may be in flight, by a clock that the tests set."""

from __future__ import annotations

from kb_builder.ask.limits import Limiter


def answers(limiter: Limiter, count: int, *, now: float, latency: float, per_second: float) -> float:
    """So many answers, evenly spaced; the time after the last."""
    for _ in range(count):
        now += 1.0 / per_second
        limiter.answered(now, sent=now - latency)
    return now


def test_it_starts_at_its_ceiling_and_never_passes_it() -> None:
    """Answers alone change nothing."""
    limiter = Limiter(256)
    answers(limiter, 1000, now=0.0, latency=0.5, per_second=500.0)
    assert limiter.limit == 256


def test_a_round_trip_is_cut_once() -> None:
    """All calls in flight may be throttled by one excess; only one sent after the cut is news."""
    limiter = Limiter(100)
    for _ in range(100):
        limiter.throttled(1.0, sent=0.5)
    assert limiter.limit == 70
    limiter.throttled(1.4, sent=0.99)
    assert limiter.limit == 70
    limiter.throttled(1.5, sent=1.0)
    assert limiter.limit == 49


def test_a_limits_worth_of_answers_adds_one_step() -> None:
    """One more per round trip under a low ceiling, 1/64 of a high one."""
    for ceiling, step in ((64, 1.0), (256, 4.0), (1024, 16.0)):
        limiter = Limiter(ceiling)
        limiter.throttled(0.0, sent=0.0)
        before = limiter.limit
        answers(limiter, before, now=1.0, latency=0.5, per_second=100.0)
        assert before + step - 1 <= limiter.limit <= before + step + 1


def test_one_call_is_always_allowed() -> None:
    """However often it is throttled, the run goes on."""
    limiter = Limiter(8)
    for second in range(50):
        limiter.throttled(float(second), sent=float(second))
    assert limiter.limit == 1
    answers(limiter, 50, now=100.0, latency=0.1, per_second=10.0)
    assert limiter.limit == 8


def test_slower_answers_at_no_higher_rate_cut() -> None:
    """Three times the latency at the same rate is a queue on the other side."""
    limiter = Limiter(64)
    now = answers(limiter, 65, now=0.0, latency=0.5, per_second=100.0)
    assert limiter.limit == 64
    answers(limiter, 64, now=now, latency=1.5, per_second=100.0)
    assert limiter.limit == 57


def test_slower_answers_at_a_higher_rate_are_a_gain() -> None:
    """Three times the latency while twice as many are answered is no reason to send less."""
    limiter = Limiter(64)
    now = answers(limiter, 65, now=0.0, latency=0.5, per_second=100.0)
    answers(limiter, 64, now=now, latency=1.5, per_second=200.0)
    assert limiter.limit == 64


def test_a_lasting_slowness_becomes_the_measure() -> None:
    """A model that has become slower for good is not starved: the best window is forgotten bit by bit."""
    limiter = Limiter(64)
    now = answers(limiter, 65, now=0.0, latency=0.1, per_second=100.0)
    lowest = 64
    for _ in range(100):
        now = answers(limiter, 64, now=now, latency=1.0, per_second=50.0)
        lowest = min(lowest, limiter.limit)
    assert 8 <= lowest < 32
    assert limiter.limit == 64
