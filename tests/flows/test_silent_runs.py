"""The automation that marks silent runs crashed."""

from __future__ import annotations

import asyncio

import pytest
from prefect.client.orchestration import get_client

from flows.silent_runs import NAME, watch_silent_runs


@pytest.mark.usefixtures("served")
def test_the_server_is_given_it_once() -> None:
    """Serving a second time against the same server adds no second automation."""
    asyncio.run(watch_silent_runs())

    async def named() -> list[str]:
        async with get_client() as client:
            return [each.name for each in await client.read_automations_by_name(NAME) if each.enabled]

    assert asyncio.run(named()) == [NAME]
