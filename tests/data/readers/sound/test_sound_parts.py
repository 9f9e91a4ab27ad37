"""Sound files as pipes, `cat` and broken downloads leave them: read whole, or refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from data.errors import SampleError
from data.readers import read
from data.readers.payload import Floats, Waveform

RATE = 16_000


def heard(path: Path) -> Floats:
    payload = read("audio", path)
    assert isinstance(payload, Waveform)
    assert payload.rate == RATE
    return payload.samples_T


def noise(seed: int, count: int = 8000) -> Floats:
    """Samples that 16 bits hold exactly."""
    stored = np.random.default_rng(seed).integers(-9000, 9000, count)
    return (stored / 32768).astype(np.float32)


def tone(hertz: float, *, rate: int = RATE, seconds: float = 1.0) -> Floats:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def coded(samples: Floats, form: str, *, rate: int = RATE, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def chunk(name: bytes, body: bytes, order: str = "<", *, size: int | None = None, pad: bool = True) -> bytes:
    said = len(body) if size is None else size
    return name + struct.pack(order + "I", said) + body + (b"\0" if pad and len(body) % 2 else b"")


def wav(
    samples: Floats,
    *,
    size: int | None = None,
    before: bytes = b"",
    behind: bytes = b"",
    extensible: bool = False,
) -> bytes:
    """A WAV made by hand: one channel of 16 bits, with the size of its sound as some writer left it."""
    body = np.rint(samples * 32768).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else 1, 1, RATE, 2 * RATE, 2, 16)
    if extensible:
        form += struct.pack("<HHI", 22, 16, 4) + b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    inner = b"WAVE" + chunk(b"fmt ", form) + before + chunk(b"data", body, size=size) + behind
    whole = len(inner) if size is None else min(2**32 - 1, size + len(inner) - len(body))
    return b"RIFF" + struct.pack("<I", whole if size != 0 else 0) + inner


PIPED = [0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB, 0xFFFFFF00]
PIPED += [0xFFFFFFFE, 0xFFFFF000, 0x7F000000, 0x7FFFFFDC, 0xFFFFFFD0]


@pytest.mark.parametrize("size", PIPED, ids=hex)
@pytest.mark.parametrize("extensible", [False, True])
def test_sizes_that_a_pipe_leaves_are_unknown(size: int, extensible: bool, tmp_path: Path) -> None:
    """SoX, arecord, FFmpeg, GStreamer and others leave these as the size: sound runs to the file's end."""
    samples = noise(0, 3999)
    before = chunk(b"LIST", b"INFOISFT\x06\0\0\0Lavf60")
    (tmp_path / "a.wav").write_bytes(wav(samples, size=size, before=before, extensible=extensible))
    np.testing.assert_array_equal(heard(tmp_path / "a.wav"), samples)


def test_a_wav_without_sound_is_not_an_unknown_one(tmp_path: Path) -> None:
    """Zero bytes of sound, and a list behind them that the header counts, hold no sound."""
    tags = chunk(b"LIST", b"INFOISFT\x06\0\0\0Lavf60")
    empty = wav(noise(0, 0), size=0) + tags
    (tmp_path / "a.wav").write_bytes(empty[:4] + struct.pack("<I", len(empty) - 8) + empty[8:])
    with pytest.raises(SampleError, match="contains no sound"):
        read("audio", tmp_path / "a.wav")


@pytest.mark.parametrize("missing", [1, 2, 2000, 15_000])
def test_a_cut_wav_is_no_unknown_one(missing: int, tmp_path: Path) -> None:
    """Whatever is missing, a real size refuses it."""
    (tmp_path / "a.wav").write_bytes(wav(noise(0))[:-missing])
    with pytest.raises(SampleError, match="truncated"):
        read("audio", tmp_path / "a.wav")


@pytest.mark.parametrize(
    "behind",
    [b"\x01" * 99, bytes(9000), b"ID3\x03\0\0\0\0\x46\x10" + b"\x01" * 9000, chunk(b"id3 ", b"x" * 9001)],
)
def test_tags_and_padding_behind_a_wav_are_no_sound(behind: bytes, tmp_path: Path) -> None:
    """A few bytes, zeros, an ID3 tag as it is and as a chunk."""
    samples = noise(0)
    (tmp_path / "a.wav").write_bytes(wav(samples) + behind)
    np.testing.assert_array_equal(heard(tmp_path / "a.wav"), samples)


def test_much_behind_a_wav_is_refused(tmp_path: Path) -> None:
    """A recorder that did not come to write its size leaves sound behind the sound: it is not dropped."""
    (tmp_path / "a.wav").write_bytes(wav(noise(0)) + np.arange(9000, dtype="<i2").tobytes())
    with pytest.raises(SampleError, match="are not declared in its header"):
        read("audio", tmp_path / "a.wav")


@pytest.mark.parametrize(("count", "reason"), [(8000, None), (40_001, "truncated, 40,000 of 40,001")])
def test_a_flac_with_a_wrong_length(count: int, reason: str | None, tmp_path: Path) -> None:
    """One that says too few samples is read to its end; one that says too many was cut."""
    samples = noise(5, 40_000)
    data = bytearray(coded(samples, "FLAC"))
    data[22:26] = struct.pack(">I", count)
    (tmp_path / "a.flac").write_bytes(data)
    if reason is None:
        np.testing.assert_array_equal(heard(tmp_path / "a.flac"), samples)
    else:
        with pytest.raises(SampleError, match=reason):
            read("audio", tmp_path / "a.flac")


@pytest.mark.parametrize("pad", [True, False])
def test_chunks_of_odd_size_are_passed_over(pad: bool, tmp_path: Path) -> None:
    """A list of odd size before the sound, padded as it must be or not as some writers do, hides nothing."""
    samples = noise(1)
    before = chunk(b"LIST", b"INFOICMT\x05\0\0\0hello", pad=pad)
    (tmp_path / "a.wav").write_bytes(wav(samples, before=before if pad else before + b""))
    if pad:
        np.testing.assert_array_equal(heard(tmp_path / "a.wav"), samples)
    else:  # libsndfile goes by the padding: whole, or one line
        try:
            np.testing.assert_array_equal(heard(tmp_path / "a.wav"), samples)
        except SampleError as refused:
            assert "a.wav" in str(refused)


@pytest.mark.parametrize(("form", "place"), [("RF64", 28), ("W64", None), ("AU", 8), ("CAF", None)])
def test_other_containers_of_unknown_size(form: str, place: int | None, tmp_path: Path) -> None:
    """RF64, Wave64, AU and CAF with "unknown" in place of the size give the sound to its end."""
    samples = noise(2)
    data = bytearray(coded(samples, form, subtype="PCM_16"))
    if form == "RF64":
        assert data[12:16] == b"ds64"
        data[28:36] = bytes(8)
    elif form == "W64":
        at = data.index(b"data\xf3\xac\xd3\x11") + 16
        data[at : at + 8] = bytes(8)
    elif form == "AU":
        order = ">" if data[:4] == b".snd" else "<"
        data[8:12] = struct.pack(order + "I", 2**32 - 1)
    else:
        at = data.index(b"data") + 4
        data[at : at + 8] = b"\xff" * 8
    (tmp_path / "a.bin").write_bytes(data)
    np.testing.assert_array_equal(heard(tmp_path / "a.bin"), samples)


def test_bw64_is_read(tmp_path: Path) -> None:
    """BW64 is RF64 by another name (ITU-R BS.2088); libsndfile does not know it, FFmpeg does."""
    samples = noise(2)
    (tmp_path / "a.wav").write_bytes(b"BW64" + coded(samples, "RF64", subtype="PCM_16")[4:])
    np.testing.assert_allclose(heard(tmp_path / "a.wav"), samples, atol=1e-7)


@pytest.mark.parametrize("size", [0x7F000000, 0xFFFFFFFF, 0])
def test_an_aiff_from_a_pipe(size: int, tmp_path: Path) -> None:
    """SoX writes an AIFF to a pipe with 0x7f000000 in place of frames and sizes."""
    samples = noise(3)
    data = bytearray(coded(samples, "AIFF", subtype="PCM_16"))
    at, common = data.index(b"SSND") + 4, data.index(b"COMM") + 10
    data[at : at + 4] = data[common : common + 4] = data[4:8] = struct.pack(">I", size)
    (tmp_path / "a.aiff").write_bytes(data)
    np.testing.assert_array_equal(heard(tmp_path / "a.aiff"), samples)


@pytest.mark.parametrize("form", ["AIFF", "AU", "CAF", "W64", "RF64", "SVX", "NIST", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_every_container_that_is_cut_is_refused(form: str, share: float, tmp_path: Path) -> None:
    """A download that broke off is never read as a shorter sound."""
    data = coded(noise(4, 30_000), form)
    (tmp_path / "a.bin").write_bytes(data[: round(len(data) * share)])
    with pytest.raises(SampleError, match=r"truncated|not a readable sound"):
        read("audio", tmp_path / "a.bin")


def streamed(flac: bytes) -> bytes:
    """A FLAC as it is written to a pipe: its length and its checksum are 0, "unknown" (RFC 9639)."""
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    data[26:42] = bytes(16)
    return bytes(data)


@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125), bytes(4096)], ids=["", "id3", "zeros"])
@pytest.mark.parametrize("count", [100, 4096, 4097, 40_000])
def test_a_flac_of_unknown_length_is_read(behind: bytes, count: int, tmp_path: Path) -> None:
    """Its last frame says how long it is, and its checksum that it is whole."""
    samples = noise(5, count)
    (tmp_path / "a.flac").write_bytes(streamed(coded(samples, "FLAC")) + behind)
    np.testing.assert_array_equal(heard(tmp_path / "a.flac"), samples)


@pytest.mark.parametrize("missing", [1, 2, 3, 500, 9000, 30_000])
def test_a_cut_flac_of_unknown_length_is_refused(missing: int, tmp_path: Path) -> None:
    """Without a length only the last frame's checksum tells that something is missing."""
    data = streamed(coded(noise(6, 40_000), "FLAC"))
    (tmp_path / "a.flac").write_bytes(data[:-missing])
    with pytest.raises(SampleError, match=r"last frame is incomplete|lost sync"):
        read("audio", tmp_path / "a.flac")


def test_joined_lossless_sounds_are_read_whole(tmp_path: Path) -> None:
    """`cat` of two WAVs, FLACs (of known and unknown length), AIFFs, AUs, CAFs or W64s is both sounds."""
    one, two = noise(7), noise(8, 5001)
    both = np.concatenate([one, two])
    for form in ("WAV", "FLAC", "AIFF", "AU", "CAF", "W64"):
        (tmp_path / f"a.{form}").write_bytes(coded(one, form) + coded(two, form))
        np.testing.assert_array_equal(heard(tmp_path / f"a.{form}"), both, err_msg=form)
    parts = streamed(coded(one, "FLAC")) + streamed(coded(two, "FLAC")) + coded(one, "FLAC")
    (tmp_path / "b.flac").write_bytes(parts)
    np.testing.assert_array_equal(heard(tmp_path / "b.flac"), np.concatenate([one, two, one]))


def test_what_follows_a_wave64_is_no_sound(tmp_path: Path) -> None:
    """Its size says where the sound ends; libsndfile alone would read a tag behind it as samples."""
    samples = noise(9)
    (tmp_path / "a.w64").write_bytes(coded(samples, "W64") + b"TAG" + bytes(range(125)))
    np.testing.assert_array_equal(heard(tmp_path / "a.w64"), samples)


def pitches(samples: Floats, pieces: int) -> list[int]:
    """The strongest frequency in the middle of each of so many pieces, in hertz."""
    found = []
    for piece in np.array_split(samples, pieces):
        middle = piece[len(piece) // 4 : -len(piece) // 4]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        found.append(round(float(np.fft.rfftfreq(len(middle), 1 / RATE)[spectrum.argmax()])))
    return found


@pytest.mark.parametrize("rates", [(16_000, 16_000), (16_000, 24_000), (48_000, 16_000)])
@pytest.mark.parametrize("form", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_joined_lossy_sounds_are_read_whole(
    form: tuple[str, str | None], rates: tuple[int, int], tmp_path: Path
) -> None:
    """Chained Ogg and joined MP3s of one or two rates, one and two channels: both tones, in their order."""
    one, two = tone(700, rate=rates[0]), tone(2100, rate=rates[1])
    stereo = np.stack([two, two], axis=1)
    data = coded(one, form[0], rate=rates[0], subtype=form[1])
    data += coded(stereo, form[0], rate=rates[1], subtype=form[1])
    (tmp_path / "a.snd").write_bytes(data)
    samples = heard(tmp_path / "a.snd")
    assert len(samples) == pytest.approx(2 * RATE, abs=400)
    assert pitches(samples, 2) == [pytest.approx(700, abs=5), pytest.approx(2100, abs=5)]
    loud = np.sqrt((samples[RATE + 4000 : -4000] ** 2).mean())
    assert loud == pytest.approx(0.4 / np.sqrt(2), rel=0.03)


def bare_mp3(samples: Floats, rate: int = RATE) -> bytes:
    """An MP3 without an information frame, as streams have them."""
    data = coded(samples, "MP3", rate=rate)
    mark = data.find(b"Info") if b"Info" in data else data.find(b"Xing")
    assert mark > 0
    second = data.find(data[:2], mark)
    return data[second:]


@pytest.mark.parametrize(
    ("before", "between"),
    [
        (b"", b""),
        (b"ID3\x04\0\0\0\0\x02\x01" + bytes(257), b""),
        (b"", b"TAG" + bytes(125)),
        (b"", b"ID3\x03\0\0\0\0\x00\x20" + b"TIT2" + bytes(28)),
        (bytes(700), bytes(300)),
    ],
)
def test_mp3s_with_tags_and_padding_are_read_whole(before: bytes, between: bytes, tmp_path: Path) -> None:
    """Tags before, between and behind joined MP3s hold no sound and end none."""
    one, two = coded(tone(700), "MP3"), coded(tone(2100), "MP3")
    (tmp_path / "a.mp3").write_bytes(before + one + between + two + b"TAG" + bytes(125))
    samples = heard(tmp_path / "a.mp3")
    assert len(samples) == pytest.approx(2 * RATE, abs=400)
    assert pitches(samples, 2) == [pytest.approx(700, abs=5), pytest.approx(2100, abs=5)]


def test_an_mp3_that_counts_too_few_is_read_to_its_end(tmp_path: Path) -> None:
    """A stream appended to a file whose information frame counts the old frames is part of the sound."""
    (tmp_path / "a.mp3").write_bytes(coded(tone(700), "MP3") + bare_mp3(tone(2100)))
    samples = heard(tmp_path / "a.mp3")
    assert len(samples) == pytest.approx(2 * RATE, abs=3000)
    assert pitches(samples, 2) == [pytest.approx(700, abs=5), pytest.approx(2100, abs=5)]


def test_an_mp3_with_a_hole_is_refused(tmp_path: Path) -> None:
    """A run of bytes in the middle that are no frames is damage, not silence."""
    data = bytearray(bare_mp3(tone(700, seconds=40.0)))
    data[20_000:36_000] = b"\x55" * 16_000
    (tmp_path / "a.mp3").write_bytes(data)
    with pytest.raises(SampleError, match="not MPEG frames"):
        read("audio", tmp_path / "a.mp3")


def test_an_ogg_with_a_missing_page_is_refused(tmp_path: Path) -> None:
    """Pages are numbered: a gap is damage that libvorbis passes over without a word."""
    data = coded(noise(9, 200_000), "OGG", subtype="VORBIS")
    places = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    assert len(places) > 5
    (tmp_path / "a.ogg").write_bytes(data[: places[3]] + data[places[4] :])
    with pytest.raises(SampleError, match="is followed by page"):
        read("audio", tmp_path / "a.ogg")


def av_file(path: Path, samples: Floats, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(("ending", "codec"), [("mka", "aac"), ("m4a", "aac"), ("webm", "libopus")])
def test_a_cut_container_is_refused_and_a_whole_one_read(ending: str, codec: str, tmp_path: Path) -> None:
    """Matroska, WebM and MP4 say how long they are; a half of one is refused, with the seconds."""
    path = tmp_path / f"a.{ending}"
    av_file(path, tone(700, rate=48_000, seconds=6.0), codec)
    assert len(heard(path)) == pytest.approx(6 * RATE, rel=0.01)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SampleError, match=r"truncated|not a readable sound"):
        read("audio", path)


def test_a_sound_without_a_decoder_is_one_line_of_ours(tmp_path: Path) -> None:
    """A WAV of an unknown coding has no decoder: that is said, and no library's attribute is named."""
    form = struct.pack("<HHIIHHHHHHHH", 0x7777, 1, 44100, 11000, 1, 16, 8, 1, 2, 3, 4, 5)
    inner = b"WAVE" + chunk(b"fmt ", form) + chunk(b"data", bytes(5000))
    (tmp_path / "a.ogg").write_bytes(b"RIFF" + struct.pack("<I", len(inner)) + inner)
    with pytest.raises(SampleError, match="not supported by FFmpeg"):
        read("audio", tmp_path / "a.ogg")


def test_an_ogg_within_a_wav_is_heard(tmp_path: Path) -> None:
    """Encoders of 2001 put a whole Ogg Vorbis into a WAV (format 0x674f); LMMS has such drums."""
    inside = coded(tone(700), "OGG", subtype="VORBIS")
    form = struct.pack("<HHIIHHHHHHHH", 0x674F, 1, RATE, 11000, 1, 16, 8, 1, 2, 3, 4, 5)
    inner = b"WAVE" + chunk(b"fmt ", form) + chunk(b"data", inside)
    (tmp_path / "a.ogg").write_bytes(b"RIFF" + struct.pack("<I", len(inner)) + inner)
    (tmp_path / "b.ogg").write_bytes(inside)
    np.testing.assert_array_equal(heard(tmp_path / "a.ogg"), heard(tmp_path / "b.ogg"))


def test_decoders_write_nothing_to_the_terminal(tmp_path: Path) -> None:
    """Cut, joined and mistagged MP3s: libmpg123 and FFmpeg have much to say of them, and say it to nobody."""
    one, two = coded(tone(700), "MP3"), coded(tone(2100, seconds=2.0), "MP3")
    cases = [one + two, one[:-700], one + b"\x55" * 3000 + two, two[900:]]
    cases += [b"ID3\x04\0\0\0\0\x7f\x7f" + one]
    cases += [one[:4] + b"\x55" * 2000, b"\xff\xe3\x18\xc4" * 500]
    for number, data in enumerate(cases):
        (tmp_path / f"{number}.mp3").write_bytes(data)
    code = (
        "import sys, pathlib\nfrom data.readers import read_here\nfrom data.errors import SampleError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: read_here('audio', path)\n    except SampleError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == done.stdout == ""
