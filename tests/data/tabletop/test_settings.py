"""The settings of the sample world."""

from __future__ import annotations

import pytest

from data.errors import ProjectError
from data.tabletop.settings import TabletopSettings, check_settings


def test_the_defaults_are_in_bounds() -> None:
    """What nobody changed is accepted."""
    check_settings(TabletopSettings())


def test_every_mistake_is_named_at_once() -> None:
    """Three bad settings give one error that holds all three names and values."""
    bad = TabletopSettings(objects_per_category=2, video_px=300, points=12.5)  # type: ignore[arg-type]
    with pytest.raises(ProjectError) as caught:
        check_settings(bad)
    for part in ("objects_per_category = 2", "video_px = 300", "points = 12.5"):
        assert part in str(caught.value)


@pytest.mark.parametrize("settings", [TabletopSettings(video_px=101), TabletopSettings(seed=-1)])
def test_odd_frames_and_negative_seeds_are_refused(settings: TabletopSettings) -> None:
    """4:2:0 video has no odd sides, and random generators no negative seeds."""
    with pytest.raises(ProjectError):
        check_settings(settings)
