"""Reads sounds: soundfile first, PyAV for other containers; mixed to one channel, at 16 kHz by default."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from data.errors import SampleError
from data.readers.container import open_container
from data.readers.matroska import is_whole_matroska
from data.readers.payload import Floats, Waveform
from data.readers.sound.chunks import AU_MAGICS, CHUNKED_MAGICS, au_parts, caf_parts, chunked_parts, w64_parts
from data.readers.sound.flac import flac_parts
from data.readers.sound.mpeg import find_sound, is_mpeg, mpeg_parts
from data.readers.sound.nist import nist_parts
from data.readers.sound.ogg import ogg_parts
from data.readers.stretch import Stretch
from data.readers.untrusted import MEBIBYTE, check_file, decoding

RATE = 16_000  # the rate of the field's audio encoders (METHOD.md)
MAX_BYTES = 512 * MEBIBYTE
MAX_SECONDS = 30 * 60
MAX_CHANNELS = 64
MAX_PEAK = 1000.0  # float files may exceed ±1, but 60 dB above full scale means damage
BLOCK_FRAMES = 2**16
CANCELLED = 1e-3  # the mean of channels has less than this share of their power only if they cancel out
# Tolerance between declared and real duration of a container: encoders round, trimmed files lack a little.
SHORT_BY_S, SHORT_BY_SHARE = 0.5, 0.02
HEAD_BYTES = 16
WAV_HEAD_BYTES = 4096
MPEG_FORMATS = (0x50, 0x55)  # Layers I and II, Layer III


def read_audio(path: Path, *, rate: int = RATE) -> Waveform:
    """Read a sound as float32[T], channels averaged, at `rate` samples a second (soxr, high quality).

    Concatenated sounds (chained Ogg, joined MP3s) are read completely, each at its own rate. Raises
    `SampleError` for empty, truncated or over-long sounds and for NaN or infinite samples.
    """
    check_file(path, max_bytes=MAX_BYTES)
    with decoding(path, "sound"):
        parts, mpeg = sound_parts(path)
    heard: list[tuple[Floats, int]] = []
    seconds = 0.0
    for part in parts:
        # Not libsndfile: its libmpg123 writes to the terminal and trusts the declared length of a file.
        mono_T, own = _read_with_av(part, before=seconds) if mpeg else _read_part(part, before=seconds)
        seconds += len(mono_T) / own
        heard.append((mono_T, own))
    if len({own for _, own in heard}) == 1:  # resampled as one, without artefacts at the joints
        heard = [(np.concatenate([mono_T for mono_T, _ in heard]), heard[0][1])]
    if not any(len(mono_T) for mono_T, _ in heard):
        raise SampleError(f"{path}: contains no sound (zero samples); record or fetch it again")
    samples_T = np.concatenate([_at_rate(mono_T, own, rate, path) for mono_T, own in heard])
    if not len(samples_T):
        count, own = len(heard[0][0]), heard[0][1]
        raise SampleError(f"{path}: {count} samples at {own} Hz are too short for a sound; record it again")
    return Waveform(np.ascontiguousarray(samples_T, dtype=np.float32), rate)


def sound_parts(path: Path) -> tuple[list[Stretch], bool]:
    """The concatenated sounds of a file, and whether they may be MPEG sounds (MP3).

    A file with one sound, or of a format unknown here, is one part. Sizes that a writer could not fill in (it
    wrote to a pipe) are corrected. Raises `SampleError` for a truncated file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = find_sound(file)  # behind ID3 tags
        file.seek(begin)
        head = file.read(HEAD_BYTES)
    if head[:4] in CHUNKED_MAGICS:
        return chunked_parts(path, size), _is_mpeg_in_wav(path)
    if head[:4] in AU_MAGICS:
        return au_parts(path, size), False
    if head[:4] == b"caff":
        return caf_parts(path, size), False
    if head[:4] == b"riff":
        return w64_parts(path, size), False
    if head[:4] == b"OggS":
        return ogg_parts(path, begin, size), False
    if head[:4] == b"fLaC":
        return flac_parts(path, begin, size), False
    if head[:7] == b"NIST_1A":
        return nist_parts(path, size), False
    if is_mpeg(path, begin):
        return mpeg_parts(path, begin, size), True
    # libsndfile identifies MPEG by these two bytes alone, and fails late if it is another format.
    return [Stretch(path, 0, size)], begin > 0 or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _is_mpeg_in_wav(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(WAV_HEAD_BYTES)
    at = head.find(b"fmt ")
    return at >= 0 and int.from_bytes(head[at + 8 : at + 10], "little") in MPEG_FORMATS


def _read_part(part: Stretch, *, before: float) -> tuple[Floats, int]:
    """(float32[T], rate), decoded by libsndfile, or by FFmpeg for formats it does not know."""
    with closing(part.open()) as file:
        try:
            with decoding(part.path, "sound"):
                # By path if possible: reading through Python costs a call for every few kilobytes.
                sound = soundfile.SoundFile(part.path if part.is_whole else file)
        except SampleError as refused:
            if not isinstance(refused.__cause__, soundfile.LibsndfileError):
                raise
        else:
            with sound:
                return _read_with_soundfile(sound, part.path, before=before), int(sound.samplerate)
    return _read_with_av(part, before=before)  # m4a, aac, the sound of a video …


def _read_with_soundfile(sound: soundfile.SoundFile, path: Path, *, before: float) -> Floats:
    """float32[T] at the file's own rate; mixed block by block, so that memory does not grow with channels."""
    _check_length(path, seconds=before + sound.frames / sound.samplerate, channels=sound.channels)
    with decoding(path, "sound"):
        blocks: list[Floats] = []
        power = _Power()
        # Not sound.blocks(): it refuses codecs in which libsndfile cannot seek (GSM), and pads truncated
        # files with the remains of the previous block.
        for start in range(0, sound.frames, BLOCK_FRAMES):
            block_TC = sound.read(min(BLOCK_FRAMES, sound.frames - start), dtype="float32", always_2d=True)
            blocks.append(block_TC.mean(axis=1, dtype=np.float32))
            power.add(block_TC, blocks[-1])
    power.require_sound(path)
    mono_T = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if len(mono_T) < sound.frames:
        raise SampleError(
            f"{path}: truncated, {len(mono_T):,} of {sound.frames:,} samples are there; fetch it again"
        )
    return mono_T


def _read_with_av(part: Stretch, *, before: float) -> tuple[Floats, int]:
    """(float32[T], rate) of the first audio stream of any container that FFmpeg supports."""
    import av

    path = part.path
    with (
        closing(part.open()) as file,
        open_container(
            path, what="sound", max_bytes=MAX_BYTES, file=None if part.is_whole else file
        ) as container,
    ):
        if not container.streams.audio:
            raise SampleError(f"{path}: contains no audio stream; use another file")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise SampleError(
                f"{path}: its audio codec is not supported by FFmpeg; export it again as 16-bit PCM"
            )
        with decoding(path, "sound"):
            rate, channels = int(stream.rate), int(stream.channels)
        if is_whole_matroska(path) is False:
            raise SampleError(f"{path}: truncated, the file ends before its declared end; fetch it again")
        declared_s = _declared_seconds(container, stream, path)
        _check_length(path, seconds=before + (container.duration or 0) / av.time_base, channels=channels)
        blocks: list[Floats] = []
        power = _Power()
        total, last_s = 0, 0.0
        with decoding(path, "sound"):
            for packet in container.demux():
                if packet.pts is not None and packet.size:
                    last_s = max(last_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index != stream.index:
                    continue
                for frame in packet.decode():
                    if frame.sample_rate != rate:
                        raise SampleError(
                            f"{path}: its rate changes from {rate} to {frame.sample_rate} Hz midway; "
                            "export it again at one rate"
                        )
                    samples_CT = _samples(frame)
                    blocks.append(samples_CT.mean(axis=0, dtype=np.float32))
                    power.add(samples_CT, blocks[-1])
                    total += len(blocks[-1])
                    _check_length(path, seconds=before + total / rate, channels=channels)
    power.require_sound(path)
    start_s = float((stream.start_time or 0) * stream.time_base)
    found_s = max(total / rate, last_s - start_s)
    if found_s < declared_s - max(SHORT_BY_S, SHORT_BY_SHARE * declared_s):
        raise SampleError(f"{path}: truncated, {found_s:.1f} of {declared_s:.1f} s are there; fetch it again")
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate


def _declared_seconds(container: Any, stream: Any, path: Path) -> float:
    """The duration in seconds declared by a container's header; 0 where FFmpeg only estimates it."""
    import av

    names = set(container.format.name.split(","))
    if names & {"mov", "mp4", "asf"} and stream.duration:
        return float(stream.duration * stream.time_base)
    if is_whole_matroska(path):
        return 0.0  # its video may be longer than its sound
    if names & {"matroska", "flv"}:  # one duration, that of the longest stream
        return float(container.duration or 0) / float(av.time_base)
    return 0.0


@dataclass
class _Power:
    """The power of a sound's channels, and of their mean: channels of opposite sign cancel each other."""

    channels: float = 0.0
    mean: float = 0.0

    @np.errstate(all="ignore")  # values that are no sound are refused elsewhere
    def add(self, samples: Floats, mean_T: Floats) -> None:
        """Add a block of samples of all channels, in any order of axes, and their mean."""
        if samples.size > mean_T.size:
            self.channels += float(np.vdot(samples, samples)) * mean_T.size / samples.size
            self.mean += float(np.vdot(mean_T, mean_T))

    def require_sound(self, path: Path) -> None:
        """Raise `SampleError` where the channels cancel each other out, and silence would be left."""
        if self.mean < CANCELLED * self.channels:
            raise SampleError(
                f"{path}: its channels cancel each other out (one is the other's negative): their mean is"
                " silence; save one of them"
            )


def _samples(frame: Any) -> Floats:
    """float32[C, T] of a decoded frame."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        samples_CT: Floats = samples.astype(np.float32)
    else:
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        offset = half if samples.dtype.kind == "u" else 0.0
        samples_CT = ((samples.astype(np.float64) - offset) / half).astype(np.float32)
    return np.ascontiguousarray(samples_CT)


def _check_length(path: Path, *, seconds: float, channels: int) -> None:
    if seconds > MAX_SECONDS:
        raise SampleError(f"{path}: {seconds:,.0f} s are more than {MAX_SECONDS:,} s; cut it into pieces")
    if channels > MAX_CHANNELS:
        raise SampleError(f"{path}: {channels} channels are more than {MAX_CHANNELS}; mix it down")


def _at_rate(mono_T: Floats, own: int, rate: int, path: Path) -> Floats:
    """Check a sound's values, and resample it."""
    if not np.isfinite(mono_T).all():
        raise SampleError(f"{path}: contains NaN or infinite samples; export it again as 16-bit PCM")
    if len(mono_T) and (peak := float(np.abs(mono_T).max())) > MAX_PEAK:
        raise SampleError(f"{path}: peaks at {peak:.3g} times full scale; export it again as 16-bit PCM")
    samples_T: Floats = mono_T if own == rate or not len(mono_T) else soxr.resample(mono_T, own, rate, "HQ")
    return samples_T
