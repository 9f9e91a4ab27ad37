"""Answers that a larger max_tokens would not have changed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from kb_builder.ask.ledger import Entry, new_entry, open_ledger
from kb_builder.ask.request import Request, request_json, request_key
from kb_builder.ask.reuse import reused

REQUEST = Request(
    endpoint="e",
    model="m",
    messages=(("user", "x"),),
    temperature=None,
    top_p=None,
    max_tokens=40,
    seed=1,
    sample_index=0,
)


def body(*reasons: str) -> str:
    """An answer whose choices ended so."""
    return json.dumps({"choices": [{"finish_reason": reason} for reason in reasons]})


def reuse(kb: Path, stored: list[tuple[int, str | None]], max_tokens: int | None) -> Entry | None:
    """What is used again for `max_tokens` after these (max_tokens, answer) were recorded."""

    async def run() -> Entry | None:
        async with open_ledger(kb) as ledger:
            for length, answer in stored:
                await ledger.submit(
                    new_entry(
                        replace(REQUEST, max_tokens=length),
                        provider="p",
                        source="batch",
                        run_id="old",
                        attempts=3,
                        latency_ms=9.0,
                        answer=answer,
                        error=None if answer else "status 400",
                        cost_usd=0.5,
                    )
                )
            return reused(ledger, request_json(replace(REQUEST, max_tokens=max_tokens)), run_id="new")

    return asyncio.run(run())


def test_a_whole_answer_becomes_an_entry_of_its_own(tmp_path: Path) -> None:
    """Its key is the new request's, it cost nothing and took no call, and it says who gave it."""
    entry = reuse(tmp_path, [(20, body("stop")), (40, body("stop", "content_filter"))], 80)
    wanted = replace(REQUEST, max_tokens=80)
    assert entry is not None
    assert (entry.key, entry.request) == (request_key(wanted), request_json(wanted))
    assert entry.answer == body("stop", "content_filter")
    assert (entry.attempts, entry.latency_ms, entry.cost_usd) == (0, 0.0, 0.0)
    assert (entry.provider, entry.source, entry.run_id) == ("p", "batch", "new")


def test_what_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    """One choice that ended with `length` is enough, also where a still shorter answer was whole."""
    assert reuse(tmp_path, [(20, body("stop")), (40, body("stop", "length"))], 80) is None


def test_no_limit_is_the_longest(tmp_path: Path) -> None:
    """Taking the limit away makes it grow, too."""
    assert reuse(tmp_path, [(40, body("stop"))], None) is not None


def test_only_growth_is_reused(tmp_path: Path) -> None:
    """A longer answer is not what a shorter limit would have given, and an error is no answer."""
    assert reuse(tmp_path, [(40, body("stop")), (10, None)], 20) is None
