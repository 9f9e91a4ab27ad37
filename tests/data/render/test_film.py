"""Event recordings as films."""

from __future__ import annotations

import numpy as np
import pytest

from data.readers.payload import Events
from data.render.film import event_frames


def _events(x: list[int], t: list[int], on: list[bool]) -> Events:
    return Events(
        x_N=np.array(x, np.uint16),
        y_N=np.zeros(len(x), np.uint16),
        t_us_N=np.array(t, np.int64),
        polarity_N=np.array(on, bool),
        width=8,
        height=1,
    )


def test_every_event_is_in_the_frame_of_its_time() -> None:
    """Growing brightness is red, fading blue, and a frame without an event white."""
    frames = event_frames(_events([0, 1, 3], [0, 10, 99], [True, False, True]), frames=4)
    assert len(frames) == 4 and {frame.shape for frame in frames} == {(1, 4, 3)}
    assert frames[0][0].tolist() == [[255, 0, 0], [0, 0, 255], [255, 255, 255], [255, 255, 255]]
    assert (frames[1] == 255).all() and (frames[2] == 255).all()
    assert frames[3][0, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("times", [[], [5], [7, 7, 7]])
def test_few_events_and_equal_times(times: list[int]) -> None:
    """No event, one, and several at once give all frames."""
    frames = event_frames(_events(list(range(len(times))), times, [True] * len(times)), frames=3)
    assert len(frames) == 3
