"""Facts of sounds: loudness, brightness, tones, and fading time.

Shape legend: T sound samples, B frequency bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.readers.payload import Waveform
from kb_builder.facts.words import grade

_WINDOW_S = 0.128  # seconds per spectrum: fine enough to separate two partials 16 Hz apart
_LOWEST_HZ = 40.0  # below it is rumble and offset
_SILENCE = 1e-5  # of full scale: -100 dB
_PARTIAL_DB = 30.0  # how far below the strongest a partial still counts

Doubles = npt.NDArray[np.float64]


def describe_sound(sound: Waveform) -> str:
    """Length, kind (a strike that fades or a lasting sound), loudness, brightness, tones, and fading time."""
    samples_T = sound.samples_T.astype(np.float64)
    samples_T -= samples_T.mean()
    length = f"{sound.seconds:.1f} seconds"
    if np.abs(samples_T).max() < _SILENCE:
        return f"A silent recording of {length}."
    fade = fading_seconds(samples_T, sound.rate)
    sounding_T = samples_T
    if fade is not None:  # the rest of the recording, after the strike, is background
        onset = _onset(samples_T)
        sounding_T = samples_T[onset : onset + round(max(fade, _WINDOW_S) * sound.rate)]
    power_B, hertz_B = _spectrum(sounding_T, sound.rate)
    loudness = grade(
        _loudest_decibels(samples_T, sound.rate),
        [(-45, "very quiet"), (-28, "quiet"), (-14, "medium loud")],
        "loud",
    )
    brightness = grade(
        spectral_centroid(power_B, hertz_B),
        [(250, "very dull"), (700, "dull"), (1500, "mellow"), (2800, "bright")],
        "very bright",
    )
    tones = _tones(power_B, hertz_B)
    if fade is None:
        course = _course(samples_T, sound.rate)
        return f"A {course} sound of {length}: {loudness}, {brightness}; {tones}."
    strike = grade(
        fade, [(0.08, "dead thud"), (0.3, "short knock"), (0.8, "short ring"), (2.0, "ring")], "long ring"
    )
    return (
        f"A struck sound of {length}: a {loudness}, {brightness} {strike} that fades within {fade:.2f} "
        f"seconds; {tones}."
    )


def spectral_centroid(power_B: Doubles, hertz_B: Doubles) -> float:
    """The mean frequency in hertz, weighted by power (Peeters, "A large set of audio features", 2004, 6.1.1).

    By power rather than amplitude, so that a faint hiss across the band does not make a thud bright.
    """
    return float((power_B * hertz_B).sum() / power_B.sum())


def spectral_flatness(power_B: Doubles) -> float:
    """Geometric over arithmetic mean of the power: 0 is a pure tone, about 0.56 and above is noise.

    Johnston, "Transform coding of audio signals using perceptual noise criteria", 1988.
    """
    floor = power_B.max() * 1e-12  # digital silence between partials: the logarithm must stay finite
    return float(np.exp(np.log(power_B + floor).mean()) / (power_B.mean() + floor))


def fading_seconds(samples_T: Doubles, rate: int) -> float | None:
    """The time in which a struck sound falls by 60 dB; None for a sound that does not fade like a strike.

    Schroeder's backward integration ("New method of measuring reverberation time", 1965): the energy still to
    come, from the onset. Its fall from -5 to -25 dB is taken three times, as ISO 3382-1 does for T20; the
    background, taken from the last tenth, is subtracted first (Chu, "Comparison of reverberation
    measurements", 1978). For a ring longer than the recording, the time is too short.

    An exponential decay reaches -5 dB after a fifth of the time to -25 dB, a steady sound after about two
    thirds of it: the limit lies between.
    """
    power_T = samples_T**2
    onset = _onset(samples_T)
    background = float(power_T[-max(1, len(power_T) // 10) :].mean())
    to_come = np.cumsum((power_T[onset:] - background)[::-1])[::-1]
    before = float(power_T[:onset].sum())
    at_5 = int(np.argmax(to_come < to_come[0] * 10**-0.5))
    at_25 = int(np.argmax(to_come < to_come[0] * 10**-2.5))
    if not 0 < at_5 < 0.55 * at_25 or before > 0.1 * to_come[0]:
        return None
    return 3.0 * (at_25 - at_5) / rate


def _onset(samples_T: Doubles) -> int:
    """The first sample above a tenth of the peak."""
    level_T = np.abs(samples_T)
    return int(np.argmax(level_T > 0.1 * level_T.max()))


def _spectrum(samples_T: Doubles, rate: int) -> tuple[Doubles, Doubles]:
    """Power averaged over half-overlapping Hann windows (Welch, 1967), and the bins' frequencies in hertz."""
    size = min(2 ** max(4, round(np.log2(_WINDOW_S * rate))), max(16, len(samples_T)))
    padded = np.pad(samples_T, (0, max(0, size - len(samples_T))))
    window = np.hanning(size)
    power_B = np.zeros(size // 2 + 1)
    for start in range(0, len(padded) - size + 1, size // 2):
        power_B += np.abs(np.fft.rfft(padded[start : start + size] * window)) ** 2
    hertz_B = np.fft.rfftfreq(size, 1 / rate)
    heard_B = hertz_B >= min(_LOWEST_HZ, hertz_B[-1])
    # A sound may be all zero at every window's weight: a floor keeps the ratios defined.
    return power_B[heard_B] + 1e-30, hertz_B[heard_B]


def _tones(power_B: Doubles, hertz_B: Doubles) -> str:
    flatness = spectral_flatness(power_B)
    if flatness > 0.3:
        return "noise without a pitch"
    strongest = float(hertz_B[power_B.argmax()])
    pitch = grade(strongest, [(120, "very low"), (350, "low"), (1000, "middle"), (2500, "high")], "very high")
    kind = grade(flatness, [(0.01, "clear"), (0.08, "somewhat noisy")], "noisy")
    count = _count_partials(power_B)
    number = grade(count, [(2, "one tone"), (5, "a few tones"), (12, "many tones")], "very many tones")
    return f"{kind}, {number}, the strongest {pitch}, near {strongest:.0f} Hz"


def _count_partials(power_B: Doubles) -> int:
    """Bins that stand out from five neighbours on either side and lie within 30 dB of the strongest."""
    reach = 5
    padded = np.pad(power_B, reach)
    neighbours = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    peaks = (power_B >= neighbours.max(axis=1)) & (power_B > power_B.max() * 10 ** (-_PARTIAL_DB / 10))
    return int(peaks.sum())


def _frame_power(samples_T: Doubles, rate: int) -> Doubles:
    """Mean power of consecutive 50 ms frames; of the whole where it is shorter."""
    size = max(1, min(len(samples_T), rate // 20))
    whole = samples_T[: len(samples_T) // size * size].reshape(-1, size)
    return np.asarray((whole**2).mean(axis=1))


def _loudest_decibels(samples_T: Doubles, rate: int) -> float:
    """The loudest 50 ms, in decibels below full scale."""
    return float(10 * np.log10(_frame_power(samples_T, rate).max() + 1e-12))


def _course(samples_T: Doubles, rate: int) -> str:
    """How steady a lasting sound is: the spread of its 50 ms frames' levels relative to their mean."""
    level = np.sqrt(_frame_power(samples_T, rate))
    return grade(
        float(level.std() / (level.mean() + 1e-12)), [(0.25, "steady"), (0.7, "changing")], "bursting"
    )
