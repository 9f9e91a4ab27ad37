"""Sounds: mixed to one channel at 16 kHz, whole and finite."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from data.errors import SampleError
from data.readers import read_here as read
from data.readers.payload import Floats, Waveform
from data.readers.sound.audio import read_audio


def heard(path: Path) -> Waveform:
    payload = read("audio", path)
    assert isinstance(payload, Waveform)
    return payload


def sine(frequency: float, *, rate: int, seconds: float = 0.5, amplitude: float = 0.5) -> Floats:
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(
        np.float32
    )


def pitch(sound: Waveform) -> float:
    """The strongest frequency in hertz."""
    spectrum = np.abs(np.fft.rfft(sound.samples_T * np.hanning(len(sound.samples_T))))
    return float(np.fft.rfftfreq(len(sound.samples_T), 1 / sound.rate)[spectrum.argmax()])


def test_sound_at_16_khz_comes_through_exactly(tmp_path: Path) -> None:
    """16 kHz, 16-bit, one channel: the samples are the stored numbers over 32,768."""
    stored = np.random.default_rng(0).integers(-32768, 32767, 4000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", stored, 16000, subtype="PCM_16")
    sound = heard(tmp_path / "a.wav")
    assert sound.rate == 16000
    assert sound.seconds == 0.25
    np.testing.assert_array_equal(sound.samples_T, stored.astype(np.float32) / 32768)


def test_channels_are_averaged(tmp_path: Path) -> None:
    """The one channel is the mean of all, so opposite channels cancel."""
    left = sine(440, rate=16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left, left * 0.5], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(heard(tmp_path / "a.wav").samples_T, left / 6, atol=1e-7)


@pytest.mark.parametrize("ending", ["wav", "mka"])
def test_channels_that_leave_nothing_are_refused(ending: str, tmp_path: Path) -> None:
    """A microphone whose second wire is inverted would be heard as silence; silence itself is a sound."""
    left = sine(440, rate=16000)

    def write(samples_2T: Floats) -> None:
        if ending == "wav":
            soundfile.write(tmp_path / "a.wav", samples_2T.T, 16000, subtype="PCM_16")
            return
        with av.open(str(tmp_path / "a.mka"), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=16_000, layout="stereo")
            whole = np.rint(samples_2T.T * 32767).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="stereo")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())

    write(np.stack([left, -left]))
    with pytest.raises(SampleError, match="its channels cancel each other out"):
        heard(tmp_path / f"a.{ending}")
    write(np.stack([left, -0.8 * left]))
    assert np.abs(heard(tmp_path / f"a.{ending}").samples_T).max() == pytest.approx(0.05, abs=1e-3)
    write(np.stack([left * 0, left * 0]))
    assert not heard(tmp_path / f"a.{ending}").samples_T.any()


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
def test_resampling_keeps_pitch_loudness_and_length(rate: int, tmp_path: Path) -> None:
    """A tone of any rate comes out at 16 kHz with its frequency, amplitude and duration."""
    soundfile.write(tmp_path / "a.wav", sine(1000, rate=rate), rate, subtype="FLOAT")
    sound = heard(tmp_path / "a.wav")
    assert sound.seconds == pytest.approx(0.5, abs=1e-3)
    assert pitch(sound) == pytest.approx(1000, abs=2)
    middle = sound.samples_T[2000:6000].astype(np.float64)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)


def test_what_16_khz_cannot_hold_is_filtered_out(tmp_path: Path) -> None:
    """A 12 kHz tone vanishes instead of folding down to 4 kHz."""
    soundfile.write(tmp_path / "a.wav", sine(12_000, rate=44100), 44100, subtype="FLOAT")
    assert np.abs(heard(tmp_path / "a.wav").samples_T[500:-500]).max() < 1e-3


def test_another_rate_is_read_from_the_file_itself(tmp_path: Path) -> None:
    """Asked for 48 kHz, a tone of 12 kHz is there, whoever decodes the file; at its own rate bits stay."""
    tone = sine(12_000, rate=48_000, seconds=1.0)
    soundfile.write(tmp_path / "a.wav", tone, 48_000, subtype="FLOAT")
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    exact = read_audio(tmp_path / "a.wav", rate=48_000)
    np.testing.assert_array_equal(exact.samples_T, tone)
    for name in ("a.wav", "a.m4a"):
        sound = read_audio(tmp_path / name, rate=48_000)
        assert sound.rate == 48_000
        assert pitch(sound) == pytest.approx(12_000, abs=2)


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3", "m4a", "mkv"])
def test_other_containers(ending: str, tmp_path: Path) -> None:
    """soundfile's formats, and those it does not know (through PyAV), give the same tone."""
    path = tmp_path / f"a.{ending}"
    tone = sine(500, rate=48000, seconds=1.0)
    if ending in {"m4a", "mkv"}:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    else:
        soundfile.write(path, tone, 48000)
    sound = heard(path)
    assert sound.seconds == pytest.approx(1.0, abs=0.1)  # lossy codecs pad
    assert pitch(sound) == pytest.approx(500, abs=2)
    assert np.abs(sound.samples_T[4000:12000]).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "subtype", "rate"),
    [
        ("a.wav", "GSM610", 8000),  # libsndfile cannot seek in it
        ("a.wav", "MS_ADPCM", 22050),  # UrbanSound8K has some
        ("a.wav", "PCM_U8", 11025),
        ("a.wav", "DOUBLE", 192_000),
        ("a.aiff", "PCM_24", 44100),
        ("a.caf", "ALAC_16", 48000),
        ("a.nist", "ULAW", 8000),  # whose header gives a number as a text
        ("a.nist", "PCM_24", 16000),
        ("a.mp3", "MPEG_LAYER_III", 32000),
    ],
)
def test_other_codings_and_rates(name: str, subtype: str, rate: int, tmp_path: Path) -> None:
    """What libsndfile codes, at any rate, gives the same tone."""
    form = name.partition(".")[2].upper()
    soundfile.write(tmp_path / name, sine(500, rate=rate, seconds=1.0), rate, subtype=subtype, format=form)
    sound = heard(tmp_path / name)
    assert sound.seconds == pytest.approx(1.0, abs=0.1)
    assert pitch(sound) == pytest.approx(500, abs=2)
    assert np.abs(sound.samples_T[4000:12000]).max() == pytest.approx(0.5, abs=0.05)


def test_the_estimated_length_of_an_mpeg_sound_is_no_truncation(tmp_path: Path) -> None:
    """libsndfile promises a little more of an MP2 than there is; what is there is read, and nothing else."""
    with av.open(str(tmp_path / "a.mp2"), "w") as container:
        stream = container.add_stream("mp2", rate=44100, layout="mono")
        level = (sine(500, rate=44100, seconds=1.5)[: 57 * 1152].reshape(-1, 1, 1152) * 32767).astype(
            np.int16
        )
        for block in level:
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    there = soundfile.read(tmp_path / "a.mp2")[0]
    sound = heard(tmp_path / "a.mp2")
    assert len(sound.samples_T) == pytest.approx(len(there) * 16_000 / 44_100, abs=1)
    assert pitch(sound) == pytest.approx(500, abs=2)


def test_bare_dolby_streams(tmp_path: Path) -> None:
    """AC-3 without a container goes through PyAV."""
    with av.open(str(tmp_path / "a.ac3"), "w") as container:
        stream = container.add_stream("ac3", rate=48000, layout="mono")
        for block in sine(500, rate=48000, seconds=1.0).reshape(-1, 1536 // 12)[:372].reshape(-1, 1536):
            frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert pitch(heard(tmp_path / "a.ac3")) == pytest.approx(500, abs=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_samples_that_are_no_sound_are_refused(bad: float, tmp_path: Path) -> None:
    """NaN, infinity and absurd peaks are refused by name."""
    samples = sine(440, rate=16000)
    samples[100] = bad
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(SampleError, match=r"NaN or infinite|peaks at"):
        read("audio", tmp_path / "a.wav")


def test_a_wav_without_samples_is_refused(tmp_path: Path) -> None:
    """A valid header with nothing behind it is an empty sound."""
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), 16000)
    with pytest.raises(SampleError, match="contains no sound"):
        read("audio", tmp_path / "a.wav")


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_sounds_are_refused(ending: str, share: float, tmp_path: Path) -> None:
    """A recording cut short is refused, though libsndfile would read the rest of a WAV in silence."""
    path = tmp_path / f"a.{ending}"
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    soundfile.write(path, noise, 16000)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SampleError, match=r"truncated|not a readable sound|contains no sound"):
        read("audio", path)


def test_a_wav_from_a_pipe_is_read(tmp_path: Path) -> None:
    """A writer that could not seek back leaves 0xFFFFFFFF as the size: that is no truncation."""
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(440, rate=16000), 16000, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    at = raw.find(b"data") + 4
    raw[at : at + 4] = b"\xff" * 4
    path.write_bytes(raw)
    assert len(heard(path).samples_T) == 8000


def test_hours_and_crowds_are_refused_by_the_header(tmp_path: Path) -> None:
    """Too long and too many channels are refused before decoding."""
    soundfile.write(tmp_path / "long.flac", np.zeros(8000 * 1801, np.int16), 8000)
    with pytest.raises(SampleError, match="cut it into pieces"):
        read("audio", tmp_path / "long.flac")
    soundfile.write(tmp_path / "wide.wav", np.zeros((10, 65), np.float32), 8000)
    with pytest.raises(SampleError, match="mix it down"):
        read("audio", tmp_path / "wide.wav")


def test_a_silent_picture_holds_no_sound(tmp_path: Path) -> None:
    """A video without a sound track, given as audio, is refused."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode())
    with pytest.raises(SampleError, match="no audio stream"):
        read("audio", tmp_path / "a.mkv")
