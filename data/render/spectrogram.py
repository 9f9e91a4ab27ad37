"""Renders sounds: the log-mel spectrogram, in NumPy.

Shape legend: T samples, W windows (frames), B frequency bins of the Fourier transform, M mel bands.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from data.readers.payload import Bytes, Floats, Waveform
from data.render.canvas import SIZE, COLOUR_SCALE_256x3, stretch, to_byte

MELS = 128
WINDOW_S, HOP_S = 0.025, 0.010
# The lower end of the scale; the upper end is 0, a full-scale sine. Fixed, so that equal sounds get equal
# colours. Among −50, −60, −70, −80, −100 and ranges below each sound's own peak, −60 separated materials best
# (linear probe on the sample world).
FLOOR_DB = -60.0
CHUNK = 2048  # windows transformed at once: bounds memory for long sounds


def mel_picture(sound: Waveform) -> Bytes:
    """The whole sound as uint8[SIZE, SIZE, 3]: time to the right, mel frequency upwards, −60…0 dB."""
    decibel_MW = log_mel(sound.samples_T, sound.rate)
    grey_MW = to_byte(decibel_MW[::-1], low=FLOOR_DB, high=0.0)
    return COLOUR_SCALE_256x3[stretch(grey_MW, width=SIZE, height=SIZE)]


def log_mel(samples_T: Floats, rate: int) -> Floats:
    """Log-mel spectrogram float32[M, W] in decibels relative to a full-scale sine, lowest band first.

    Short-time power spectra (Hann windows of 25 ms every 10 ms; a shorter sound is padded to one window) are
    summed by triangular filters that are evenly spaced on the mel scale. A full-scale sine has power 1, so a
    band that holds all of it shows 0 dB; nothing goes below −100 dB.
    """
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    # Padded to bins 16 Hz apart: at 31 Hz some of the lowest of 128 bands would fall between two of them.
    fft_size = 2 << (window - 1).bit_length()
    hann_T = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    # Parseval: the one-sided sum of |X|² of a full-scale sine is fft_size / 4 × the sum of squared hann_T.
    sine_power = np.float32(fft_size / 4 * (hann_T**2).sum())
    padded_T = np.pad(samples_T, (0, max(0, window - len(samples_T))))
    windows_WT = np.lib.stride_tricks.sliding_window_view(padded_T, window)[::hop]
    filters_BM = mel_filters(rate, fft_size)
    mel_WM = np.empty((len(windows_WT), MELS), np.float32)
    for start in range(0, len(windows_WT), CHUNK):
        spectrum_WB = np.fft.rfft(windows_WT[start : start + CHUNK] * hann_T, fft_size)
        power_WB = spectrum_WB.real**2 + spectrum_WB.imag**2
        mel_WM[start : start + CHUNK] = power_WB @ filters_BM
    decibel_WM = 10 * np.log10(np.maximum(mel_WM / sine_power, np.float32(1e-10)))
    return np.ascontiguousarray(decibel_WM.T, dtype=np.float32)


@cache
def mel_filters(rate: int, fft_size: int) -> Floats:
    """Triangular filters float32[B, M] with peak 1, their corners evenly spaced in mel from 0 Hz to rate / 2.

    mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy, "Speech Communication", 1987; HTK Book, eq. 5.13).
    """
    corners_mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), MELS + 2)
    corners_hz = 700 * (10 ** (corners_mel / 2595) - 1)
    bins_hz = np.linspace(0, rate / 2, fft_size // 2 + 1)[:, None]
    left, peak, right = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising, falling = (bins_hz - left) / (peak - left), (right - bins_hz) / (right - peak)
    filters_BM: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters_BM.flags.writeable = False  # cached: shared by every caller
    return filters_BM
