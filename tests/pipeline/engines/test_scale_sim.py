"""The simulation of workers: what must hold whatever the numbers are."""

from __future__ import annotations

import pytest

from bench.scale_sim import Costs, bend, parts, replay

FREE = Costs(0, 0, 0, 0, straggling=0, losses_per_hour=0)


@pytest.mark.parametrize("workers", [1, 4, 25])
def test_without_costs_all_workers_work_all_the_time(workers: int) -> None:
    """A hundred equal parts on workers that divide them."""
    found = replay([30.0] * 100, workers, FREE)
    assert found.wall_s == pytest.approx(3000 / workers)
    assert found.efficiency == pytest.approx(1) and found.again == 0


def test_the_driver_bounds_the_number_of_workers() -> None:
    """Orders come one after the other: 1,000 of 0.1 s take 100 s, however many workers there are."""
    found = [
        (workers, replay([5.0] * 1000, workers, Costs(0, 0.1, 0, 0, 0, 1, 0))) for workers in (8, 50, 500)
    ]
    assert found[2][1].wall_s == pytest.approx(105, rel=0.01)
    assert found[0][1].efficiency > 0.95 > found[2][1].efficiency
    assert bend(found) == 500


def test_losses_are_made_again() -> None:
    """Each lost part costs its time so far and the worker's return."""
    seconds = parts(2000, 60, [])
    lossy = replay(seconds, 16, Costs(0, 0, 0, 0, 0, 1, losses_per_hour=2, back_s=120))
    assert lossy.again > 10
    assert lossy.efficiency < replay(seconds, 16, FREE).efficiency


def test_parts_have_the_mean_that_is_asked_for() -> None:
    """Whether their spread was measured or not."""
    for shape in ([], [1.0, 2.0, 6.0]):
        assert sum(parts(20_000, 30, shape)) / 20_000 == pytest.approx(30, rel=0.03)
