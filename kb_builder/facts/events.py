"""Facts of event streams: rate, polarity, spread over the sensor, course in time.

Shape legend: N events.
"""

from __future__ import annotations

import numpy as np

from data.readers.payload import Events
from kb_builder.facts.words import grade

_TIME_BINS = 20


def describe_events(events: Events) -> str:
    """Length, number and rate of events, balance of polarities, where on the sensor, and when."""
    seconds = float(events.t_us_N.max() - events.t_us_N.min()) / 1e6
    number = len(events.t_us_N)
    head = f"An event-camera recording of {seconds:.2f} seconds with {number} events"
    pixel_N = events.y_N.astype(np.int64) * events.width + events.x_N
    active = int(np.count_nonzero(np.bincount(pixel_N)))
    # Per pixel of the sensor, so that a large sensor does not make every scene look busy.
    per_pixel = number / (events.width * events.height)
    rate = grade(
        per_pixel / seconds if seconds > 0 else 0.0,
        [
            (0.3, "a very sparse stream"),
            (0.6, "a sparse stream"),
            (1.0, "a moderate stream"),
            (2.0, "a lively stream"),
            (5.0, "a dense stream"),
        ],
        "a very dense stream",
    )
    facts = [rate] if seconds > 0 else ["all at one moment"]
    facts.append(
        grade(
            float(events.polarity_N.mean()),
            [
                (0.3, "mostly darkening"),
                (0.45, "more darkening than brightening"),
                (0.55, "as much brightening as darkening"),
                (0.7, "more brightening than darkening"),
            ],
            "mostly brightening",
        )
    )
    facts.append(
        f"on {active / (events.width * events.height):.0%} of the sensor, {_pattern(events, active)}"
    )
    each = grade(number / active, [(1.5, "one"), (3.3, "few"), (4.7, "several"), (10.0, "many")], "very many")
    facts.append(f"{each} at each pixel that saw any")
    if seconds > 0:
        facts.append(_course(events))
    return f"{head}: {'; '.join(facts)}."


def _pattern(events: Events, active: int) -> str:
    """How filled the region is that holds the middle 90% of events in each direction, and its proportions."""
    left, right = np.quantile(events.x_N, [0.05, 0.95])
    top, bottom = np.quantile(events.y_N, [0.05, 0.95])
    width, height = float(right - left) + 1, float(bottom - top) + 1
    # 0.9 of the events in each direction lie in the region; about as many of the active pixels do.
    filled = 0.81 * active / (width * height)
    lines = grade(
        filled,
        [(0.3, "thin outlines"), (0.6, "outlines with some texture"), (0.85, "mostly filled")],
        "filled with texture",
    )
    form = grade(width / height, [(0.6, "tall"), (1.7, "compact")], "wide")
    return f"{lines} in a {form} region"


def _course(events: Events) -> str:
    """The spread of the event counts of 20 equal spans of time, relative to their mean."""
    counts, _ = np.histogram(events.t_us_N, bins=_TIME_BINS)
    return grade(
        float(counts.std() / counts.mean()),
        [(0.25, "steady in time"), (0.8, "swelling and fading")],
        "in bursts",
    )
