"""What an endpoint's headers say of its limits."""

from __future__ import annotations

import pytest

from kb_builder.ask.request import Limits, read_limits


def test_openai_headers_are_read() -> None:
    """Counts are whole numbers, resets are durations."""
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m1.5s",
    }
    assert read_limits(headers) == Limits(500, 499, 0.12, 30000, 0, 361.5)


@pytest.mark.parametrize("headers", [{}, {"x-ratelimit-limit-requests": "many"}, {"date": "today"}])
def test_what_is_no_limit_is_none(headers: dict[str, str]) -> None:
    """An endpoint without limits, or with ones that cannot be read, sets none."""
    assert read_limits(headers) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1.0), ("1h2m3s", 3723.0), ("0", 0.0), ("12.5", 12.5), ("soon", None)]
)
def test_durations(text: str, seconds: float | None) -> None:
    """Both a bare number of seconds and Go's notation are in use."""
    limits = read_limits({"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": text})
    assert limits is not None and limits.reset_tokens_s == seconds


def test_limits_beyond_sense_say_nothing() -> None:
    """A count of a thousand digits, times of infinity or no number: as if the header were not there."""
    for value in ("9" * 5000, "-1", "1.5", "inf", "nan", "", "١٢"):
        assert read_limits({"x-ratelimit-limit-requests": value}) is None
    for value in ("inf", "nan", "1e999", "1.2.3s", "99999999d", "..s"):
        assert read_limits({"x-ratelimit-reset-tokens": value}) is None
