"""The standing torture suite (`make torture`), in short: each attack for some trials on a small project."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from bench.torture.__main__ import ATTACKS, Attack, Tally, rows, torture
from bench.torture.ground import Ground
from bench.torture.page import table
from bench.torture.trial import Trial

# How many trials of each: together some five minutes.
_TRIALS = {"kills": 5, "proxy": 40, "media": 400, "files": 600, "places": 10, "disk": 8, "limits": 5}
_TRIALS |= {"flips": 10, "clock": 2, "readonly": 3, "ledger": 100, "removed": 5}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: each.key)
def test_an_attack_is_held(ground: Ground, attack: Attack) -> None:
    """Nothing is silent, nothing hangs, nothing ends in a traceback."""
    trials = islice(attack.trials(ground, random.Random(7)), _TRIALS[attack.key])
    assert [f"{each.what}: {each.problem}" for each in trials if each.problem is not None] == []


def test_the_table_counts_what_was_tried_and_what_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attack gets at least one trial, and a problem is a problem in table, row and exit status."""
    sound = Attack("a", "sound", 1, lambda ground, rng: iter([Trial("x"), Trial("y")]))
    broken = Attack("b", "broken", 1, lambda ground, rng: iter([Trial("x", "it is silent"), Trial("y")]))
    monkeypatch.setattr("bench.torture.__main__.ground", _no_ground)
    tallies = torture(0.01, 1, [sound, broken], tmp_path)
    assert tallies == {"sound": Tally(2, []), "broken": Tally(2, ["x: it is silent"])}
    assert table(rows(tallies)).endswith("| sound | 2 | 2 |\n| broken | 2 | 1 |")
    assert [(each["tried"], each["value"], each["met"]) for each in rows(tallies)] == [
        (2, 0, True),
        (2, 1, False),
    ]
    first = torture(0, 1, [broken], tmp_path)
    assert first["broken"].tried == 1


class _NoGround:
    seconds = 0.0

    def __enter__(self) -> _NoGround:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave nothing."""


def _no_ground(root: Path) -> _NoGround:
    return _NoGround()
