"""Budgets per minute, with a clock of the test's own."""

from __future__ import annotations

import pytest

from kb_builder.ask.request import read_limits
from kb_builder.fake_openai.errors import ApiError
from kb_builder.fake_openai.limits import RateBudget, budgets, duration, take
from kb_builder.fake_openai.settings import FakeSettings


def test_a_budget_empties_and_fills_evenly() -> None:
    """A minute's worth at first, then a sixtieth of it each second, and never more than it holds."""
    now = [0.0]
    requests = RateBudget("requests", 120, clock=lambda: now[0])
    for _ in range(120):
        take((requests,), tokens=1)
    with pytest.raises(ApiError) as caught:
        take((requests,), tokens=1)
    assert caught.value.headers["retry-after-ms"] == "500"
    now[0] = 0.5
    assert take((requests,), tokens=1)["x-ratelimit-remaining-requests"] == "0"
    now[0] = 1000.0
    assert take((requests,), tokens=1)["x-ratelimit-remaining-requests"] == "119"


def test_a_refused_request_costs_nothing() -> None:
    """Where one budget has too little, no other is charged."""
    held = (RateBudget("requests", 10, clock=lambda: 0.0), RateBudget("tokens", 100, clock=lambda: 0.0))
    with pytest.raises(ApiError, match="tokens per min"):
        take(held, tokens=101)
    assert take(held, tokens=100)["x-ratelimit-remaining-requests"] == "9"


def test_the_settings_say_which_budgets_there_are() -> None:
    """None, one or both."""
    assert budgets(FakeSettings()) == ()
    assert [budget.name for budget in budgets(FakeSettings(rpm=1, tpm=2))] == ["requests", "tokens"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.017, "17ms"), (1.5, "1.5s"), (59.0, "59s"), (360.0, "6m0s")]
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    """And our own reader takes them back."""
    assert duration(seconds) == text
    limits = read_limits({"x-ratelimit-reset-requests": text})
    assert limits is not None and limits.reset_requests_s == pytest.approx(seconds)
