"""What a process of a test of the Batch API does before its command."""

from __future__ import annotations

from functools import partial


def quick_pace() -> None:
    """Nobody asks for 0.2 s instead of 15, and looks come every 0.1 s instead of every 5.

    So many rounds that nothing dies in all of them.
    """
    from kb_builder.ask.batch import asker

    pace = {"rounds": 20, "quiet_s": 0.2, "poll_s": 0.1, "longest_poll_s": 0.1, "settle_s": 0.5}
    asker.Pace = partial(asker.Pace, **pace)
