"""The turning film and its file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from data.tabletop.objects import draw_object
from data.tabletop.scene import solid_of
from data.tabletop.video import film, write_video


def test_the_file_holds_every_frame_in_order_and_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    """The decoded video has the frames that were filmed, over one second, within the codec's error."""
    spec = draw_object("wooden", "cube", index=0, seed=0)
    filmed = film(spec, solid_of(spec), side=64, frames=8)
    assert filmed.frames_FHW3.shape == (8, 64, 64, 3)
    assert filmed.light_FHW.shape == (8, 64, 64)
    write_video(filmed.frames_FHW3, tmp_path / "a.mp4")
    for filling in range(0, 250, 10):  # what is left in freed memory must not show
        rubbish = [np.full(50_000, filling, np.uint8) for _ in range(20)]
        del rubbish
        write_video(filmed.frames_FHW3, tmp_path / "b.mp4")
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with av.open(tmp_path / "a.mp4") as container:
        assert float(container.duration / av.time_base) == 1.0
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 8
    for found, frame in zip(decoded, filmed.frames_FHW3, strict=True):
        assert np.abs(found.astype(int) - frame.astype(int)).mean() < 6


def test_every_frame_differs_from_the_one_before_even_for_a_polished_ball() -> None:
    """A ball looks the same however it is turned, but the camera sways: there is always something to see."""
    spec = draw_object("steel", "sphere", index=0, seed=0)
    filmed = film(spec, solid_of(spec), side=48, frames=5)
    change = np.abs(np.diff(filmed.light_FHW, axis=0)).mean(axis=(1, 2))
    assert (change > 1e-3).all()
