"""The script of a rehearsal: mistakes in it are told at once."""

from __future__ import annotations

import re
from typing import Any

import pytest

from data.errors import InputError
from kb_builder.fake_openai import LASTING, PASSING, FakeSettings, all_faults


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"faults": {"sulk": 0.1}}, "unknown fault 'sulk'; known are: throttle, "),
        ({"faults": {"500": 1.5}}, "between 0 and 1"),
        ({"faults": {"500": 0.6, "503": 0.6}}, "together"),
        ({"faults": {"refusal": 0.6, "policy": 0.6}}, "together"),
        ({"faults": {"hang": -0.1, "500": 0.2}}, "fault hang"),
        ({"duplicate_rate": 2.0}, "duplicate_rate"),
        ({"batch_expired": 0.7, "batch_failed": 0.7}, "together"),
        ({"latency_s": -1.0}, "latency_s"),
        ({"outages": ((5.0, 2.0),)}, "5:2"),
    ],
)
def test_mistakes_are_told(fields: dict[str, Any], words: str) -> None:
    """Each names what is wrong; an unknown fault lists the known ones."""
    with pytest.raises(InputError, match=re.escape(words)):
        FakeSettings(**fields)


def test_a_total_is_spread_over_every_passing_fault() -> None:
    """Evenly, and over nothing that lasts."""
    shares = all_faults(0.2)
    assert set(shares) == set(PASSING) and len(set(shares.values())) == 1
    assert sum(shares.values()) == pytest.approx(0.2)
    assert not set(PASSING) & set(LASTING)
    FakeSettings(faults=all_faults(1.0) | {name: 1 / len(LASTING) for name in LASTING})
