"""The hard budget."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from data.errors import ProjectError, RunError
from kb_builder.ask.budget import (
    Budget,
    booked_cost,
    bounded_worst_case,
    open_budget,
    require_bounds,
)
from kb_builder.ask.cost import worst_case
from kb_builder.ask.ledger import new_entry, open_ledger
from kb_builder.ask.request import Media, Request
from kb_builder.ask.write_offs import write_off
from kb_builder.settings import DescribeSamples, Price
from kb_builder.tables.schemas import SAMPLES, write_table

PRICE = Price(input=1.0, output=10.0, date="2026-01-01")
REQUEST = Request(
    endpoint="e",
    model="m",
    messages=(("user", "x"),),
    temperature=None,
    top_p=None,
    max_tokens=100,
    seed=None,
    sample_index=0,
)
USED = json.dumps({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}})
SILENT = json.dumps({"choices": []})


def test_reservations_never_pass_the_budget() -> None:
    """What is spent and what is reserved count together, and a settled call makes room."""
    budget = Budget(1.0, spent=0.25)
    assert budget.reserve(0.5)
    assert not budget.reserve(0.5)
    assert budget.reserve(0.25)
    budget.settle(0.5, 0.1)
    assert budget.reserve(0.4)
    assert not budget.reserve(0.1)
    assert (budget.spent, budget.reserved) == (0.35, pytest.approx(0.65))


def test_the_error_says_what_is_spent_and_what_is_needed() -> None:
    """And that the run goes on after `budget_usd` is raised."""
    error = Budget(5.0, spent=4.99).used_up(0.02)
    for words in ("$5 ", "$4.99", "$0.02", "budget_usd", "run again"):
        assert words in str(error)


def test_an_answer_without_usage_counts_in_full() -> None:
    """Its true cost where it tells its usage, its worst case where it does not."""
    assert booked_cost(PRICE, REQUEST, USED) == pytest.approx(0.002)
    assert booked_cost(PRICE, REQUEST, USED, batch=True) == pytest.approx(0.001)
    assert booked_cost(PRICE, REQUEST, SILENT) == worst_case(PRICE, REQUEST)


def test_a_request_without_a_bound_fits_no_budget() -> None:
    """It is refused before it is sent, with what is lacking."""
    with pytest.raises(RunError, match="max_tokens"):
        bounded_worst_case(PRICE, replace(REQUEST, max_tokens=None))
    picture = replace(REQUEST, messages=(("user", (Media("image", "0" * 64, "r"),)),))
    with pytest.raises(RunError, match="image_tokens"):
        bounded_worst_case(PRICE, picture)


def test_earlier_runs_count(tmp_path: Path) -> None:
    """Costs in the ledger, answers of this model without one, and nobody else's."""

    async def run() -> Budget:
        async with open_ledger(tmp_path) as ledger:
            for index, (model, answer, cost_usd, attempts) in enumerate(
                [
                    ("m", USED, 0.5, 1),
                    ("m", USED, None, 1),  # written by a version that kept no costs
                    ("m", SILENT, None, 1),
                    ("m", USED, None, 0),  # another request's answer, used again
                    ("local", USED, None, 1),
                ]
            ):
                request = replace(REQUEST, model=model, sample_index=index)
                await ledger.submit(
                    new_entry(
                        request,
                        provider="p",
                        source="online",
                        run_id="r",
                        attempts=attempts,
                        latency_ms=1.0,
                        answer=answer,
                        cost_usd=cost_usd,
                    )
                )
            return open_budget(9.0, PRICE, ledger, endpoint="e", model="m")

    worst = worst_case(PRICE, replace(REQUEST, sample_index=2))
    assert asyncio.run(run()).spent == pytest.approx(0.5 + 0.002 + (worst or 0.0))


def test_what_was_written_off_counts_in_every_later_run(tmp_path: Path) -> None:
    """An answer that broke off has no entry, and yet may have been charged for."""

    async def opened(*amounts: float) -> float:
        async with open_ledger(tmp_path) as ledger:
            for amount in amounts:
                await ledger.write(partial(write_off, usd=amount))
            return open_budget(1.0, PRICE, ledger, endpoint="e", model="m").spent

    assert asyncio.run(opened()) == 0.0
    assert asyncio.run(opened(0.25, 0.5)) == 0.75
    assert asyncio.run(opened()) == 0.75


@pytest.mark.parametrize(
    ("modality", "price", "told"),
    [
        ("image", PRICE, "image_tokens"),
        ("image", replace(PRICE, image_tokens=100), None),
        ("text", PRICE, None),
        ("image", None, "price of 'm' is not known"),
    ],
)
def test_a_budget_that_cannot_hold_is_told_at_the_start(
    tmp_path: Path, modality: str, price: Price | None, told: str | None
) -> None:
    """What nothing bounds is refused before anything is paid for, and only where it would be asked."""
    row = {"sample_id": "s", "object_id": None, "modality": modality, "uri": "s", "category_id": None}
    write_table(tmp_path / "samples.parquet", [row | {"split": "test", "sha256": "0", "bytes": 1}], SAMPLES)
    samples = DescribeSamples(describer="openai", model="m", base_url="http://h/v1", price=price)
    require_bounds(tmp_path, samples)  # without a budget nothing needs a bound
    if told is None:
        require_bounds(tmp_path, replace(samples, budget_usd=1.0))
    else:
        with pytest.raises(ProjectError, match=told):
            require_bounds(tmp_path, replace(samples, budget_usd=1.0))
