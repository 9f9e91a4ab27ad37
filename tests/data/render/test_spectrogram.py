"""The log-mel spectrogram against an independent implementation and known signals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal  # type: ignore[import-untyped]
from transformers.audio_utils import mel_filter_bank

from data.readers.payload import Floats, Waveform
from data.render.spectrogram import MELS, log_mel, mel_filters, mel_picture

RATE = 16_000


def tone(frequency: float, *, seconds: float = 1.0, amplitude: float = 1.0) -> Floats:
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(RATE * seconds)) / RATE)).astype(
        np.float32
    )


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("fft_size", [1024, 2048])
def test_filters_against_transformers(fft_size: int) -> None:
    """The filter bank is that of `transformers.audio_utils` on the HTK mel scale without area norm."""
    reference = mel_filter_bank(fft_size // 2 + 1, MELS, 0.0, RATE / 2, RATE, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_filters(RATE, fft_size), reference, atol=1e-5)


def test_no_filter_is_empty() -> None:
    """At the transform size in use every band hears something; with 31 Hz bins some would be deaf."""
    assert (mel_filters(RATE, 1024).max(axis=0) > 0.4).all()
    assert (mel_filters(RATE, 512).max(axis=0) == 0).any()


def test_log_mel_against_scipy() -> None:
    """Spectra from scipy.signal.spectrogram through the reference filters give the same decibels."""
    rng = np.random.default_rng(0)
    samples = (rng.normal(0, 0.1, RATE) + 0.3 * tone(700) + 0.1 * tone(5000)).astype(np.float32)
    _, _, density = scipy.signal.spectrogram(
        samples.astype(np.float64),
        RATE,
        window=scipy.signal.get_window("hann", 400, fftbins=True),
        noverlap=240,
        nfft=1024,
        detrend=False,
        scaling="spectrum",
    )
    # "spectrum" scaling gives a sine's power A² / 2 at its bin; undo it to the bare, one-sided |X|².
    window = scipy.signal.get_window("hann", 400, fftbins=True)
    bare = density * window.sum() ** 2
    bare[1:-1] /= 2
    filters = mel_filter_bank(513, MELS, 0.0, RATE / 2, RATE, norm=None, mel_scale="htk")
    expected = 10 * np.log10(np.maximum(filters.T @ bare / (1024 / 4 * (window**2).sum()), 1e-10))
    np.testing.assert_allclose(log_mel(samples, RATE), expected, atol=2e-3)


def test_a_full_scale_sine_is_at_0_db() -> None:
    """A loud high tone, whose band is wider than its spectral line, shows 0 dB; at a tenth, −20 dB."""
    for amplitude, level in ((1.0, 0.0), (0.1, -20.0)):
        total = 10 ** (log_mel(tone(6000, amplitude=amplitude), RATE).astype(np.float64) / 10)
        assert 10 * np.log10(total.sum(axis=0).mean()) == pytest.approx(level, abs=0.3)


def test_silence_is_black_and_tones_stand_where_they_should() -> None:
    """Silence is the floor's colour; a high tone stands above a low one; what is later is further right."""
    assert mel_picture(Waveform(np.zeros(RATE, np.float32), RATE)).max() <= 4
    low_then_high = np.concatenate([tone(300), tone(4000)]) * np.float32(0.5)
    brightness = mel_picture(Waveform(low_then_high, RATE)).astype(int).sum(axis=2)
    row_of_low, row_of_high = (int(half.sum(axis=1).argmax()) for half in np.split(brightness, 2, axis=1))
    assert row_of_high < row_of_low
    mel_of_300 = 2595 * np.log10(1 + 300 / 700) / (2595 * np.log10(1 + 8000 / 700))
    assert row_of_low == pytest.approx((1 - mel_of_300) * 224, abs=4)


@pytest.mark.parametrize("count", [1, 399, 400, 401, 561, 70_000])
def test_sounds_of_any_length_are_drawn(count: int) -> None:
    """One sample or four seconds: windows are counted without padding, but there is always one."""
    samples = np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)
    assert log_mel(samples, RATE).shape == (MELS, 1 + max(0, count - 400) // 160)
    assert mel_picture(Waveform(samples, RATE)).shape == (224, 224, 3)


def test_long_sounds_are_transformed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Working chunk by chunk changes nothing."""
    samples = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    whole = log_mel(samples, RATE)
    monkeypatch.setattr("data.render.spectrogram.CHUNK", 7)
    np.testing.assert_allclose(log_mel(samples, RATE), whole, atol=1e-3)
