"""Progress of a step, as its watcher sees it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from data.progress import Step, StepProgress, steps_watched


def test_every_move_is_told_from_any_thread() -> None:
    """A step that began in the block tells where it stands, also from threads of its own."""
    told: list[StepProgress] = []
    with steps_watched(told.append):
        step = Step("texts", total=5, done=1)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(step.add, 3).result()
        step.say("2 in flight")
    assert step.watched
    assert told == [
        StepProgress("texts", 1, 5),
        StepProgress("texts", 4, 5),
        StepProgress("texts", 4, 5, "2 in flight"),
    ]


def test_outside_the_block_nobody_is_told() -> None:
    """A step that begins after the block counts for itself."""
    told: list[StepProgress] = []
    with steps_watched(told.append):
        pass
    step = Step("texts", total=5)
    step.add(1)
    assert not step.watched
    assert told == []
