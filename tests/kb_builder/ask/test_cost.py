"""Costs of requests, and unknown costs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from kb_builder.ask import cost as module
from kb_builder.ask.cost import (
    OPENAI,
    CostEstimate,
    Usage,
    cost,
    estimate,
    estimate_tokens,
    price_of,
    usage_of,
    worst_case,
)
from kb_builder.ask.request import Media, Request
from kb_builder.settings import Price

PRICE = Price(input=2.0, output=8.0, date="2026-01-01", batch_share=0.5, image_tokens=1000)
REQUEST = Request(
    endpoint=OPENAI,
    model="gpt-4o-mini",
    messages=(("user", "Describe a dog in one sentence, please."),),
    temperature=0.5,
    top_p=None,
    max_tokens=100,
    seed=7,
    sample_index=0,
)
PICTURE = replace(REQUEST, messages=(("user", ("What is this?", Media("image", "0" * 64, "r1"))),))


def test_every_packaged_price_is_whole() -> None:
    """Each has both sides, a batch share and the table's date; dated names are those of the model."""
    prices = module._prices()
    assert len(prices) > 10
    for name, price in prices.items():
        assert 0 < price.input < price.output, name
        assert 0 < price.batch_share <= 1
        date.fromisoformat(price.date)
    assert prices["gpt-4o-mini-2024-07-18"] == prices["gpt-4o-mini"]


def test_a_price_is_given_packaged_or_unknown() -> None:
    """The project's own wins; OpenAI's table holds for OpenAI's endpoint; anything else is not known."""
    assert price_of("gpt-4o-mini", PRICE) == PRICE
    assert price_of("gpt-4o-mini", None) == module._prices()["gpt-4o-mini"]
    assert price_of("gpt-4o-mini", None, endpoint="http://127.0.0.1:8000/v1") is None
    assert price_of("my-own-model", None) is None
    assert price_of(None, None) is None
    assert price_of("fake-1", PRICE, endpoint="fake:") == PRICE


def test_costs_are_per_million_tokens() -> None:
    """Checked by hand; a batch costs its share; what is not known makes the cost unknown."""
    assert cost(PRICE, 1_000_000, 500_000) == 6.0
    assert cost(PRICE, 1_000_000, 500_000, batch=True) == 3.0
    assert cost(PRICE, 0, 0) == 0.0
    assert cost(None, 1, 1) is cost(PRICE, None, 1) is cost(PRICE, 1, None) is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4)),
        ({"prompt_tokens": 3}, None),
        ({"prompt_tokens": "3", "completion_tokens": 4}, None),
        ({"prompt_tokens": -1, "completion_tokens": 4}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_is_read_or_unknown(usage: object, expected: Usage | None) -> None:
    """Servers leave it out, or write nonsense."""
    assert usage_of(json.dumps({"usage": usage})) == expected
    assert usage_of("{}") is None


def test_the_worst_case_bounds_what_a_request_can_cost() -> None:
    """At least one token per byte of the words and the response format, and n full answers."""
    longest = worst_case(PRICE, REQUEST)
    words = len(b"Describe a dog in one sentence, please.")
    assert longest is not None
    assert longest >= (2.0 * words + 8.0 * 100) / 1e6
    assert longest < (2.0 * (words + 100) + 8.0 * 100) / 1e6
    assert worst_case(PRICE, REQUEST, batch=True) == longest / 2
    twice = worst_case(PRICE, replace(REQUEST, extra={"n": 2}))
    assert twice is not None and twice > longest + 8.0 * 100 / 1e6
    pictured = worst_case(PRICE, PICTURE)
    assert pictured is not None and pictured > 2.0 * 1000 / 1e6
    assert worst_case(PRICE, replace(REQUEST, max_tokens=None)) is None
    assert worst_case(replace(PRICE, image_tokens=None), PICTURE) is None
    sound = replace(REQUEST, messages=(("user", (Media("audio", "0" * 64, "r1"),)),))
    assert worst_case(PRICE, sound) is None


def test_tokens_are_estimated_by_length() -> None:
    """One token for every four letters, and the most of the answer."""
    tokens = estimate_tokens(REQUEST)
    assert 10 <= tokens.prompt <= 16
    assert tokens.completion_max == 100
    assert estimate_tokens(replace(REQUEST, max_tokens=None)).completion_max is None
    assert estimate_tokens(replace(REQUEST, extra={"n": 3})).completion_max == 300


def test_a_plan_is_estimated_in_one_pass() -> None:
    """Requests, tokens and money add up; a picture costs its most; one unknown makes the money unknown."""
    prompt = estimate_tokens(REQUEST).prompt
    plan = estimate(iter([REQUEST] * 10), PRICE, batch=False)
    expected = CostEstimate(10, 10 * prompt, 1000, (2.0 * 10 * prompt + 8.0 * 1000) / 1e6)
    assert plan == replace(expected, usd=pytest.approx(expected.usd))
    half = estimate([REQUEST] * 10, PRICE, batch=True)
    assert half.usd == pytest.approx((expected.usd or 0.0) / 2)
    pictured = estimate([REQUEST, PICTURE], PRICE, batch=False)
    assert pictured.prompt_tokens > 1000 and pictured.usd is not None
    assert estimate([REQUEST], None, batch=False).usd is None
    assert estimate([REQUEST, PICTURE], replace(PRICE, image_tokens=None), batch=False).usd is None
    assert estimate([replace(REQUEST, max_tokens=None)], PRICE, batch=False).usd is None
    assert estimate([], PRICE, batch=False) == CostEstimate(0, 0, 0, 0.0)
