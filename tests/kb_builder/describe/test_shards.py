"""kb_builder.describe.shards: the skeleton of the describe stages, with subjects made for the test."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kb_builder.ask.cost import Spending
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request
from kb_builder.ask.session import AskingBar
from kb_builder.describe.shards import ShardPlan, count_texts, describe_shards, shard_sizes
from kb_builder.settings import DescribeSamples


class Described:
    """A subject that needs no request."""

    def __init__(self, number: int, *statuses: str, spending: Spending | None = None) -> None:
        self.number = number
        self.rows = [{"status": status, "reason": f"{status} of {number}"} for status in statuses]
        self.spending = spending or Spending()

    def plan(self) -> list[Request]:
        return []

    def absorb(self, entries: list[Entry | None]) -> None:
        raise AssertionError("nothing was asked")


def test_sizes_of_shards() -> None:
    """Every shard is full but the last; one that does not exist is named."""
    assert shard_sizes([0, 2], size=4, total=11) == {0: 4, 2: 3}
    assert shard_sizes([], size=4, total=0) == {}
    for shard in (3, -1):
        with pytest.raises(ValueError, match=f"no shard {shard}: 11 subjects make 3 shards of 4"):
            shard_sizes([0, shard], size=4, total=11)


def test_a_shard_is_written_with_its_last_subject(tmp_path: Path) -> None:
    """Each shard is written once and reported at once; its summary is returned; the source is closed."""
    taken: list[int] = []
    events: list[tuple[Any, ...]] = []

    def subjects(bar: AskingBar) -> Generator[Described, None, None]:
        try:
            for number in (4, 5, 0, 1, 2):
                taken.append(number)
                yield Described(number, "ok")
        finally:
            events.append(("closed",))

    def write(shard: int, done: list[Described]) -> dict[str, Any]:
        events.append(
            (shard, [each.number for each in done], len(taken), threading.current_thread().name[:4])
        )
        return count_texts(done)

    plan = ShardPlan(
        title="things",
        unit=" things",
        total=5,
        kind="sample",
        prefix="part",
        count=2,
        sizes={1: 2, 0: 3},
        describer=None,
        subjects=subjects,
        shard_of=lambda subject: subject.number // 4,
        write=write,
        bar_steps=1,
    )
    reported: list[int] = []
    summaries = describe_shards(
        tmp_path,
        plan,
        DescribeSamples(),
        run_id="r",
        on_shard=lambda shard, summary: reported.append(shard),
    )
    assert events == [(1, [4, 5], 2, "fill"), (0, [0, 1, 2], 5, "fill"), ("closed",)]
    assert reported == [1, 0]
    assert [summaries[shard]["ok"] for shard in (0, 1)] == [3, 2]


def test_counts_of_texts(caplog: pytest.LogCaptureFixture) -> None:
    """Statuses are counted over all subjects, an unknown price makes the sum unknown, failures are logged."""
    known = Spending(requests=3, known=1, spent_usd=0.5, saved_usd=0.25)
    done: Sequence[Described] = [
        Described(0, "ok", "refusal", "failed", spending=known),
        Described(1, "ok", "failed", spending=Spending(requests=2, spent_usd=None)),
    ]
    assert count_texts(done) == {
        "requests": 5,
        "answered_from_ledger": 1,
        "ok": 2,
        "rejected": {"failed": 2, "refusal": 1},
        "spent_usd": None,
        "saved_usd": 0.25,
    }
    (line,) = caplog.messages
    assert line.startswith("2 requests failed for good, the first with: failed of 0 ")
    assert "--retry-failed" in line
