"""Kaldi's log mel filter bank, the input of audio encoders such as ImageBind and AST, in NumPy.

Shape legend: T samples, W windows (frames), B frequency bins of the Fourier transform, M mel bands.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from data.readers.payload import Doubles, Floats

WINDOW_S, HOP_S = 0.025, 0.010
PREEMPHASIS = 0.97
LOW_HZ = 20.0
LEAST_POWER = float(np.finfo(np.float32).eps)  # Kaldi's floor under the logarithm
CHUNK = 2048  # windows transformed at once: bounds memory for long sounds


def kaldi_mel(samples_T: Floats, rate: int, *, mels: int = 128) -> Floats:
    """Log mel filter bank float32[W, M] with natural logarithms, as Kaldi's `compute-fbank-feats` gives it.

    Hanning windows of 25 ms every 10 ms, only whole ones (W = 0 for a shorter sound), each freed of its mean
    and pre-emphasised by 0.97; power spectrum of the next power of two; triangles in the mel domain from
    20 Hz to half the rate; no dither, no energy. Samples are taken at the scale they have (±1 for ImageBind,
    which also takes the mean off a clip first; ±32768 for Kaldi's own models). Computed in float64.

    Source: Kaldi's `feature-window.cc`, `feature-fbank.cc`, `mel-computations.cc`. What ImageBind calls is
    torchaudio's port of them, `compliance.kaldi.fbank(…, htk_compat=True, use_energy=False,
    window_type="hanning", dither=0, num_mel_bins=128)`.
    """
    window, hop = int(rate * WINDOW_S), int(rate * HOP_S)
    if len(samples_T) < window:
        return np.zeros((0, mels), np.float32)
    fft_size = 1 << (window - 1).bit_length()
    filters_BM = kaldi_filters(rate, fft_size, mels)
    taper_T = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))
    windows_WT = np.lib.stride_tricks.sliding_window_view(samples_T, window)[::hop]
    mel_WM = np.empty((len(windows_WT), mels), np.float32)
    for start in range(0, len(windows_WT), CHUNK):
        frames_WT = windows_WT[start : start + CHUNK].astype(np.float64)
        frames_WT -= frames_WT.mean(axis=1, keepdims=True)
        # The sample before the first is taken to be the first.
        before_WT = np.concatenate([frames_WT[:, :1], frames_WT[:, :-1]], axis=1)
        spectrum_WB = np.fft.rfft((frames_WT - PREEMPHASIS * before_WT) * taper_T, fft_size)[:, :-1]
        power_WB = spectrum_WB.real**2 + spectrum_WB.imag**2
        mel_WM[start : start + CHUNK] = np.log(np.maximum(power_WB @ filters_BM, LEAST_POWER))
    return mel_WM


@cache
def kaldi_filters(rate: int, fft_size: int, mels: int) -> Doubles:
    """Triangles float64[B, M] with straight sides over mel (not over Hz), B = fft_size / 2: without Nyquist.

    mel(f) = 1127 ln(1 + f / 700); their corners lie evenly from mel(20 Hz) to mel(rate / 2).
    """
    corners_mel = np.linspace(_mel(LOW_HZ), _mel(rate / 2), mels + 2)
    left, peak, right = corners_mel[:-2], corners_mel[1:-1], corners_mel[2:]
    bins_mel = _mel(np.arange(fft_size // 2) * (rate / fft_size))[:, None]
    rising, falling = (bins_mel - left) / (peak - left), (right - bins_mel) / (right - peak)
    filters_BM: Doubles = np.maximum(0, np.minimum(rising, falling))
    filters_BM.flags.writeable = False  # cached: shared by every caller
    return filters_BM


def _mel(hz: npt.ArrayLike) -> Doubles:
    return 1127 * np.log1p(np.asarray(hz, np.float64) / 700)
