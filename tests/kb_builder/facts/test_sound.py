"""kb_builder.facts.sound: fading times, brightness and tones of sounds that are known."""

from __future__ import annotations

import numpy as np
import pytest

from data.readers.payload import Waveform
from kb_builder.facts.sound import describe_sound, fading_seconds, spectral_centroid, spectral_flatness

RATE = 16_000


def strike(hertz: float, t60: float, *, seconds: float = 1.0, noise: float = 0.0) -> np.ndarray:
    """A tone that falls by 60 dB in `t60` seconds, after 50 ms of silence, over white noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    decay = np.exp(-np.log(1000) * np.maximum(time - 0.05, 0) / t60) * (time >= 0.05)
    hiss = np.random.default_rng(0).normal(size=len(time)) * noise
    return 0.5 * np.sin(2 * np.pi * hertz * time) * decay + hiss


def said(samples: np.ndarray) -> str:
    return describe_sound(Waveform(samples.astype(np.float32), RATE))


@pytest.mark.parametrize("t60", [0.05, 0.2, 0.8])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_fading_time_is_the_one_built_in(t60: float, noise: float) -> None:
    """Schroeder's integral finds T60 of an exponential decay, also above a background 40 dB down."""
    assert fading_seconds(strike(500.0, t60, noise=noise), RATE) == pytest.approx(t60, rel=0.1)


def test_a_lasting_sound_has_no_fading_time() -> None:
    """A steady tone, noise, and a sound that swells do not fade like a strike."""
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * time)
    assert fading_seconds(tone, RATE) is None
    assert fading_seconds(np.random.default_rng(0).normal(size=RATE), RATE) is None
    assert fading_seconds(tone * time**2, RATE) is None


def test_centroid_and_flatness_by_hand() -> None:
    """Two bins of power 1 and 3 have their weighted mean; equal power is flat, one bin is not."""
    assert spectral_centroid(np.array([1.0, 3.0]), np.array([100.0, 200.0])) == pytest.approx(175.0)
    assert spectral_flatness(np.ones(64)) == pytest.approx(1.0)
    assert spectral_flatness(np.array([1.0, 4.0])) == pytest.approx(2.0 / 2.5)
    assert spectral_flatness(np.eye(64)[0] + 1e-20) < 1e-9


@pytest.mark.parametrize(
    ("hertz", "t60", "words"),
    [
        (100.0, 0.06, ("struck", "very dull dead thud", "very low")),
        (1000.0, 0.2, ("mellow short knock", "near 1000 Hz")),
        (4000.0, 1.5, ("very bright ring", "one tone", "clear")),
    ],
)
def test_strikes_in_words(hertz: float, t60: float, words: tuple[str, ...]) -> None:
    """Pitch and fading time choose the words."""
    for word in words:
        assert word in said(strike(hertz, t60, seconds=2.0))


def test_lasting_sounds_in_words() -> None:
    """A steady tone, noise, a pulsing tone and silence are told apart."""
    time = np.arange(2 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    assert said(tone).startswith("A steady sound of 2.0 seconds: ")
    assert "near 440 Hz" in said(tone) or "near 438 Hz" in said(tone)
    assert "noise without a pitch" in said(np.random.default_rng(0).normal(size=RATE) * 0.1)
    assert said(tone * (time % 1.0 > 0.7)).startswith("A bursting sound")
    assert said(np.zeros(RATE)) == "A silent recording of 1.0 seconds."


def test_loudness_is_the_loudest_moment() -> None:
    """The same strike, 40 dB down, is quieter in words and alike in everything else."""
    loud, quiet = said(strike(1000.0, 0.2)), said(strike(1000.0, 0.2) * 0.01)
    assert "loud" in loud
    assert "very quiet" in quiet
    assert loud.split("mellow")[1] == quiet.split("mellow")[1]


@pytest.mark.parametrize("length", [1, 2, 17, 500])
def test_very_short_sounds(length: int) -> None:
    """A handful of samples is described without a warning."""
    assert said(np.linspace(-0.5, 0.5, length)).startswith("A ")
