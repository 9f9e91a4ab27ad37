"""kb_builder.ask.session: what a progress bar says of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kb_builder.ask.asker import Progress
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request
from kb_builder.ask.session import AskingBar, describe_progress, open_asking, pauses
from kb_builder.describers.choose import make_describer
from kb_builder.fake_openai import FakeSettings, serve_fake
from kb_builder.settings import DescribeCategories

QUIET = Progress(
    answered=1204,
    from_ledger=0,
    failed=0,
    in_flight=56,
    limit=256,
    spent_usd=None,
    saved_usd=0.0,
    paused=None,
)


def test_a_quiet_run_says_only_what_there_is() -> None:
    """No price, no dollars; nothing known or failed, no word of it."""
    assert describe_progress(QUIET) == "1,204 requests, 56/256 in flight"


def test_everything_at_once_and_the_pause_first() -> None:
    """A narrow terminal cuts the end, so what explains a standstill comes first."""
    busy = replace(QUIET, from_ledger=300, failed=2, spent_usd=1.2, saved_usd=0.4, paused="throttled")
    assert describe_progress(busy) == (
        "paused: throttled, 1,204 requests, 300 known, 2 failed, 56/256 in flight, $1.20 spent, $0.40 saved"
    )


def test_a_pause_of_the_endpoint_is_noted_while_it_lasts(tmp_path: Path) -> None:
    """An endpoint asks to wait: another process can see why nothing is asked, and afterwards nothing."""
    settings = DescribeCategories(describer="openai", model="m", api_key_env="UNIBIND_NONE", concurrency=4)

    async def watched(asking: asyncio.Future[Sequence[Entry | None]]) -> list[str]:
        seen = []
        while not asking.done():
            seen += [pause.why for pause in pauses(tmp_path, after=0.0)]
            await asyncio.sleep(0.02)
        return seen

    async def ask() -> tuple[list[str], Sequence[Entry | None]]:
        async with serve_fake(FakeSettings(faults={"throttle_seconds": 0.5}, retry_after_s=0.5)) as url:
            describer = make_describer(replace(settings, base_url=url))
            requests = [
                Request(
                    endpoint=describer.endpoint,
                    model="m",
                    messages=(("user", f'Describe "thing {number}".'),),
                    temperature=0.5,
                    top_p=None,
                    max_tokens=40,
                    seed=number,
                    sample_index=number,
                )
                for number in range(8)
            ]
            with AskingBar("t", unit="t", total=1) as bar:
                async with open_asking(tmp_path, describer, settings, run_id="r", bar=bar) as asker:
                    asking = asyncio.ensure_future(asker.ask(requests))
                    seen = await watched(asking)
                    return seen, await asking

    seen, entries = asyncio.run(ask())
    assert seen and all("429" in why for why in seen)
    assert len(entries) == 8 and all(entry is not None and entry.answer for entry in entries)
    assert pauses(tmp_path, after=0.0) == []
