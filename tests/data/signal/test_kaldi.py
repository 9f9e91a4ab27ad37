"""Kaldi's filter bank against Kaldi's own code, torchaudio's port of it, and slow sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from data.readers.payload import Floats
from data.readers.sound.audio import read_audio
from data.readers.spans import clip_samples
from data.signal.kaldi import kaldi_filters, kaldi_mel

RATE = 16_000

# Window, band and value of `kaldi_native_fbank` 1.22 (Kaldi's C++, float32) for `sweep()`: 16 kHz, 80 bands,
# hanning, no dither, no energy. It refuses 128 bands, of which the lowest are empty.
KALDI = [
    (0, 0, -6.392983),
    (0, 5, -5.7214446),
    (0, 79, -4.7448235),
    (7, 30, -11.8169155),
    (7, 64, -7.894076),
    (16, 50, -8.405595),
]


def sweep(count: int = 3000) -> Floats:
    """A sweep, a tone and a rattle, from a formula."""
    t = np.arange(count) / RATE
    rattle = (np.arange(count) * 7919 % 1009) / 1009 - 0.5
    tones = 0.4 * np.sin(2 * np.pi * (200 * t + 12000 * t**2)) + 0.05 * np.sin(2 * np.pi * 5000 * t)
    return (tones + 0.01 * rattle).astype(np.float32)


def test_against_kaldi() -> None:
    """Kaldi's own code gives the same numbers, to its float32 arithmetic."""
    found = kaldi_mel(sweep(), RATE, mels=80)
    assert found.shape == (17, 80)
    for window, band, value in KALDI:
        assert found[window, band] == pytest.approx(value, abs=1e-3)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("count", [400, 559, 560, 32_000])
def test_imagebinds_parameters_against_transformers(count: int) -> None:
    """With 128 bands the numbers are those of transformers' port of torchaudio's Kaldi filter bank (AST)."""
    np.testing.assert_allclose(kaldi_mel(sweep(count), RATE), by_transformers(sweep(count)), atol=1e-5)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_a_real_sound_against_transformers(real_files: Path) -> None:
    """ImageBind's three clips of a recorded sound: every window and band as transformers has it."""
    sound = read_audio(real_files / "audio_airplane.wav")
    for clip_T in clip_samples(sound, clips=3, seconds=2):
        centred_T = clip_T - clip_T.mean()
        np.testing.assert_allclose(kaldi_mel(centred_T, RATE), by_transformers(centred_T), atol=1e-5)


def by_transformers(samples: Floats) -> Floats:
    filters = mel_filter_bank(
        257, 128, 20, RATE / 2, RATE, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    mel_MW: Floats = spectrogram(
        samples,
        window_function(400, "hann", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    )
    return mel_MW.T


def test_one_window_by_slow_sums() -> None:
    """A window worked out term by term: mean, pre-emphasis, taper, Fourier sum, triangles, logarithm."""
    x = sweep(400).astype(np.float64)
    x = x - x.sum() / 400
    emphasised = [x[0] - 0.97 * x[0]] + [x[i] - 0.97 * x[i - 1] for i in range(1, 400)]
    tapered = [v * (0.5 - 0.5 * np.cos(2 * np.pi * i / 399)) for i, v in enumerate(emphasised)]
    power = [
        abs(sum(v * np.exp(-2j * np.pi * k * i / 512) for i, v in enumerate(tapered))) ** 2
        for k in range(256)
    ]
    low, high = (1127 * np.log(1 + hz / 700) for hz in (20, 8000))
    for band in (10, 64, 127):
        left, peak, right = (low + (high - low) * (band + i) / 129 for i in range(3))
        total = 0.0
        for k in range(256):
            at = 1127 * np.log(1 + k * 16000 / 512 / 700)
            if left < at < right:
                total += power[k] * (
                    (at - left) / (peak - left) if at < peak else (right - at) / (right - peak)
                )
        assert kaldi_mel(sweep(400), RATE)[0, band] == pytest.approx(
            np.log(max(total, 1.1920929e-07)), abs=1e-5
        )


def test_silence_and_short_sounds() -> None:
    """Silence stands at Kaldi's floor, and a sound shorter than a window has no window."""
    silence = kaldi_mel(np.zeros(1000, np.float32), RATE)
    np.testing.assert_allclose(silence, np.log(np.finfo(np.float32).eps), rtol=1e-6)
    assert kaldi_mel(np.zeros(399, np.float32), RATE).shape == (0, 128)


def test_long_sounds_are_transformed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Working chunk by chunk changes nothing."""
    whole = kaldi_mel(sweep(20_000), RATE)
    monkeypatch.setattr("data.signal.kaldi.CHUNK", 7)
    np.testing.assert_allclose(kaldi_mel(sweep(20_000), RATE), whole, atol=1e-6)


def test_filters_leave_out_the_ends() -> None:
    """Neither 0 Hz nor anything below 20 Hz is heard, and no weight is above 1."""
    filters = kaldi_filters(RATE, 512, 23)
    assert filters.shape == (256, 23)
    assert filters[0].max() == 0
    assert 0 <= filters.min() <= filters.max() <= 1
