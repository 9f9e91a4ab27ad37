"""Sounds: soundfile first, PyAV for the containers it does not know; one channel, at 16 kHz by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from data.errors import SampleError
from data.readers.container import open_container
from data.readers.payload import Floats, Waveform
from data.readers.untrusted import MEBIBYTE, check_file, decoding
from data.readers.whole import check_whole

RATE = 16_000  # the rate of the field's audio encoders (METHOD.md)
MAX_BYTES = 512 * MEBIBYTE
MAX_SECONDS = 30 * 60
MAX_CHANNELS = 64
MAX_PEAK = 1000.0  # float files may go beyond ±1, but 60 dB beyond is damage
BLOCK_FRAMES = 2**16
MPEG_FRAME = 1152  # samples


def read_audio(path: Path, *, rate: int = RATE) -> Waveform:
    """Read a sound as float32[T], channels averaged, at `rate` samples a second (soxr, high quality).

    Raises `SampleError` for empty, truncated or over-long sounds and for NaN or infinite samples.
    """
    check_file(path, max_bytes=MAX_BYTES)
    check_whole(path)
    try:
        with decoding(path, "sound"):
            sound = soundfile.SoundFile(path)
    except SampleError as refused:
        if not isinstance(refused.__cause__, soundfile.LibsndfileError):
            raise
        mono_T, own = _read_with_av(path)  # m4a, aac, the sound of a video …
    else:
        with sound:
            mono_T, own = _read_with_soundfile(sound, path), int(sound.samplerate)
    if not len(mono_T):
        raise SampleError(f"{path}: holds no sound (zero samples); record or fetch it again")
    if not np.isfinite(mono_T).all():
        raise SampleError(f"{path}: holds NaN or infinite samples; export it again as 16-bit PCM")
    if (peak := float(np.abs(mono_T).max())) > MAX_PEAK:
        raise SampleError(f"{path}: peaks at {peak:.3g} times full scale; export it again as 16-bit PCM")
    samples_T = mono_T if own == rate else soxr.resample(mono_T, own, rate, quality="HQ")
    if not len(samples_T):
        raise SampleError(f"{path}: {len(mono_T)} samples at {own} Hz are too short to be a sound")
    return Waveform(np.ascontiguousarray(samples_T, dtype=np.float32), rate)


def _check_length(path: Path, *, seconds: float, channels: int) -> None:
    if seconds > MAX_SECONDS:
        raise SampleError(f"{path}: {seconds:,.0f} s are more than {MAX_SECONDS:,} s; cut it into pieces")
    if channels > MAX_CHANNELS:
        raise SampleError(f"{path}: {channels} channels are more than {MAX_CHANNELS}; mix it down")


def _read_with_soundfile(sound: soundfile.SoundFile, path: Path) -> Floats:
    """float32[T] at the file's own rate. Blocks keep memory at one channel, whatever the channel count."""
    _check_length(path, seconds=sound.frames / sound.samplerate, channels=sound.channels)
    with decoding(path, "sound"):
        blocks: list[Floats] = []
        # Not sound.blocks(): it refuses codecs in which libsndfile cannot seek (GSM), and where less is there
        # than declared it fills up with what the block before left.
        for start in range(0, sound.frames, BLOCK_FRAMES):
            block_TC = sound.read(min(BLOCK_FRAMES, sound.frames - start), dtype="float32", always_2d=True)
            blocks.append(block_TC.mean(axis=1, dtype=np.float32))
    mono_T = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    missing = MPEG_FRAME if sound.format == "MP3" else 0  # the length of MPEG sounds is an estimate
    if len(mono_T) < sound.frames - missing:
        raise SampleError(
            f"{path}: truncated, {len(mono_T):,} of {sound.frames:,} samples are there; fetch it again"
        )
    return mono_T


def _read_with_av(path: Path) -> tuple[Floats, int]:
    """(float32[T], rate) of the first sound track of any container that FFmpeg knows."""
    import av

    with open_container(path, what="sound", max_bytes=MAX_BYTES) as container:
        if not container.streams.audio:
            raise SampleError(f"{path}: holds no sound track; use another file")
        stream = container.streams.audio[0]
        with decoding(path, "sound"):
            rate, channels = int(stream.rate), int(stream.channels)
        _check_length(path, seconds=(container.duration or 0) / av.time_base, channels=channels)
        blocks: list[Floats] = []
        total = 0
        with decoding(path, "sound"):
            to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
            for frame in container.decode(stream):
                for converted in to_float.resample(frame):
                    blocks.append(converted.to_ndarray().mean(axis=0, dtype=np.float32))
                    total += len(blocks[-1])
                    _check_length(path, seconds=total / rate, channels=channels)
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate
