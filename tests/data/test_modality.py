"""Which modality a file's name speaks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.modality import guess_modality


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("dog.JPG", "image"),
        ("thermal_people.jpg", "thermal"),
        ("event-gerenuk.png", "event"),
        ("scene.tiff", "thermal"),
        ("walk.aedat4", "event"),
        ("event_walk.raw", "event"),
        ("walk.raw", None),  # photos and much else end so
        ("thermal_scan.dat", None),
        ("event_notes.txt", "text"),
        ("README", None),
    ],
)
def test_names_speak_for_modalities(name: str, modality: str | None) -> None:
    """The ending decides; the first word does where the ending alone is not enough."""
    assert guess_modality(Path("folder") / name) == modality
