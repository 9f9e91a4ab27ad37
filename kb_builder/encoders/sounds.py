"""Sounds at the rate that an encoder wants: readers give 16 kHz, and CLAP hears up to 14 kHz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from data.errors import SampleError
from data.readers.audio import read_audio
from data.readers.payload import Floats


def sound_at(path: Path, *, rate: int) -> Floats:
    """A sound as one channel, float32[T], at `rate` samples a second (soxr, high quality).

    Raises SampleError for what `read_audio` refuses. Containers that only FFmpeg knows (m4a, aac, the sound
    of a video) come through its 16 kHz: above 8 kHz nothing is left of them.
    """
    checked = read_audio(path)
    try:
        with soundfile.SoundFile(path) as sound:
            own = int(sound.samplerate)
            # Not without a number: in some codecs libsndfile cannot seek to look for the end.
            samples_TC = sound.read(sound.frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        samples_T, own = checked.samples_T, checked.rate
    else:
        samples_T = samples_TC.mean(axis=1, dtype=np.float32)
    if own != rate:
        samples_T = soxr.resample(samples_T, own, rate, quality="HQ")
    if not len(samples_T):
        raise SampleError(f"{path}: too short to be a sound at {rate:,} Hz; record or fetch it again")
    return np.ascontiguousarray(samples_T, dtype=np.float32)
