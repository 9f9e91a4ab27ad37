"""Damaged files of every format: each is read, or refused in one line, within its budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.torture.models import Kind, kinds
from bench.torture.models import attack as attack_weights
from bench.torture.mutate import mutant
from bench.torture.readers import BUDGET, attack
from bench.torture.seeds import Format, formats
from data.modality import EVENT_RECORDINGS, EXTENSIONS, MODALITIES
from data.readers import FileBudget, use_budget

FORMATS = formats()


@pytest.fixture(autouse=True)
def budget() -> Iterator[None]:
    use_budget(BUDGET)
    yield
    use_budget(FileBudget())


def test_every_modality_and_recording_is_attacked() -> None:
    """There are seeds of each modality, and of every ending of an event file."""
    assert {each.modality for each in FORMATS} == set(MODALITIES)
    endings = {each.ending for each in FORMATS}
    assert set(EVENT_RECORDINGS) <= endings
    assert {ending for ending, modality in EXTENSIONS.items() if modality == "event"} <= endings


def test_a_mutant_is_known_by_its_number() -> None:
    """The same seed and number give the same bytes, other numbers others; wounds are made."""
    contents = FORMATS[0].contents
    some = [mutant(contents, seed=3, number=number) for number in range(50)]
    assert some == [mutant(contents, seed=3, number=number) for number in range(50)]
    assert len(set(some)) > 45
    assert not set(some) & set(contents)


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: f"{each.modality}{each.ending}")
def test_mutants_are_read_or_refused(each: Format, tmp_path: Path) -> None:
    """Ten mutants of each format: nothing but `SampleError` with the file's name, in one line."""
    tally = attack(each, count=10, seed=20, folder=tmp_path)
    assert not tally.foreign
    assert sum(tally.outcomes.values()) == 10


@pytest.mark.slow
@pytest.mark.parametrize("each", FORMATS, ids=lambda each: f"{each.modality}{each.ending}")
def test_many_mutants_are_read_or_refused(each: Format, tmp_path: Path) -> None:
    """Five hundred mutants of each format; none is fatal to its decoder either."""
    tally = attack(each, count=500, seed=21, folder=tmp_path)
    assert not tally.foreign
    assert not tally.outcomes["fatal"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers that overflow are numbers
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_damaged_weights_are_loaded_or_refused(kind: Kind, tmp_path: Path) -> None:
    """A hundred mutants of each kind of weights: nothing but an error of ours, in one line."""
    _, foreign = attack_weights(kind, count=100, seed=5, folder=tmp_path)
    assert not foreign
