"""kb_builder.ask.session: what a progress bar says of a run."""

from __future__ import annotations

from dataclasses import replace

from kb_builder.ask.asker import Progress
from kb_builder.ask.session import describe_progress

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
