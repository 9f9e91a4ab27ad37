"""Decoder processes: what hangs, crashes or grows costs one file; what is sound comes through bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.torture.seeds import Format, formats
from data.errors import MissingDependencyError, SampleError, UniBindError
from data.readers import FileBudget, read, read_clips, read_here, reading_ahead, use_budget
from data.readers.clips import read_clips as read_clips_here
from data.readers.payload import Picture, Text
from data.readers.sandbox import pool as sandbox
from data.readers.sandbox.wire import put, take
from data.render import drawn, render

PLANTED = '''
"""Readers that misbehave by the name of the file."""
import os, signal, socket, struct, sys, time
from pathlib import Path
import numpy as np
from data.errors import SampleError
from data.readers.payload import Picture

def read(path, **options):
    with (path.parent / "log").open("a", errors="replace") as log:
        log.write(path.name + "\\n")
    kind = path.name.partition("-")[0]
    if kind == "spin":
        while True:
            pass
    if kind == "sleep":
        time.sleep(1e6)
    if kind == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "leave":
        os._exit(0)
    if kind == "quit":
        sys.exit(3)
    if kind == "eat":
        return Picture(np.ones((10**5, 10**5, 3), np.uint8))
    if kind == "raise":
        raise KeyError("two\\nlines")
    if kind == "forge":
        os.write(int(sys.argv[1]), struct.pack("<I", 2**31) + b"x" * 100)
        time.sleep(1e6)
    if kind == "lie":
        body = b'{"result": {"array": {"dtype": "<f8", "shape": [1000], "at": 0, "turned": false}}}'
        os.write(int(sys.argv[1]), struct.pack("<I", len(body)) + body)
        time.sleep(1e6)
    if kind == "once" and not (path.parent / "marked").exists():
        (path.parent / "marked").touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "see":
        raise SampleError(repr(sorted(os.environ)) + repr("torch" in sys.modules) + os.getcwd())
    size = 50_000_000 if kind == "large" else 4
    return Picture(np.full((size // 2, 2, 3), int(path.name.rpartition("-")[2]), np.uint8))

def step(picture, kind):
    if kind == "spin":
        while True:
            pass
    if kind == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "eat":
        return [np.ones(10**10, np.uint8)]
    if kind == "raise":
        raise KeyError("no\\nstep")
    if kind == "more":
        return [picture.rgb_HW3, np.ones(150_000_000, np.uint8)]
    return [picture.rgb_HW3, 2 * picture.rgb_HW3]
'''
SHORT = FileBudget(seconds=0.3, memory=200_000_000)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the misbehaving readers' module, which decoder processes can import; a small budget."""
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    sandbox.close()
    use_budget(SHORT)
    yield tmp_path
    sandbox.close()
    use_budget(FileBudget())


def decode(path: Path) -> Any:
    path.touch()
    return sandbox.decode("planted:read", path, {}, what="plant")


def tries(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


@pytest.mark.parametrize(
    ("name", "reason", "times"),
    [
        ("spin-0", "took longer than 0.3 s", 1),
        ("sleep-0", "took longer than 0.3 s", 1),
        ("segv-0", "crashed on it (SIGSEGV)", 2),
        ("leave-0", "crashed on it (exit status 0)", 2),
        ("quit-0", "crashed on it (exit status 3)", 2),
        ("eat-0", "needed more than 200 MB of memory", 1),
        ("raise-0", "not a readable plant ('two\\nlines')", 1),
        ("forge-0", "damaged its decoder", 1),
        ("lie-0", "damaged its decoder", 1),
    ],
)
def test_a_hostile_file_costs_itself(name: str, reason: str, times: int, planted: Path) -> None:
    """It is refused in one line that says why, after as many tries as make sense; the next file is read."""
    with pytest.raises(SampleError) as refused:
        decode(planted / name)
    told = str(refused.value)
    assert told.startswith(f"{planted / name}: ")
    assert reason in told
    assert "\n" not in told
    assert tries(planted) == [name] * times
    assert decode(planted / "fine-7").rgb_HW3.max() == 7


def test_no_file_is_waited_for_twice(planted: Path) -> None:
    """A file that took too long is refused at once when it is asked for again; a changed one is tried."""
    path = planted / "spin-0"
    path.touch()
    for _ in range(2):
        with pytest.raises(SampleError, match="took longer"):
            sandbox.decode("planted:read", path, {}, what="plant")
    assert tries(planted) == ["spin-0"]
    os.utime(path, (1, 1))
    with pytest.raises(SampleError, match="took longer"):
        sandbox.decode("planted:read", path, {}, what="plant")
    assert tries(planted) == ["spin-0"] * 2


def test_a_process_that_was_killed_by_a_stranger_costs_no_file(planted: Path) -> None:
    """A file whose decoder ends once is tried again, and read; so is one that finds an idle process gone."""
    assert decode(planted / "once-3").rgb_HW3.max() == 3
    (idle,) = sandbox._pool()._idle
    idle._process.send_signal(signal.SIGKILL)
    idle._process.wait()
    assert decode(planted / "fine-4").rgb_HW3.max() == 4


def test_reading_ahead_finds_the_culprits(planted: Path) -> None:
    """Of many files sent at once exactly the hostile ones are refused, and the others come in their order."""
    names = [
        f"{kind}-{n}" for n, kind in enumerate(("fine", "segv", "fine", "spin", "eat", "fine", "raise") * 3)
    ]
    files = [planted / name for name in names]
    for path in files:
        path.touch()
    found: list[int | None] = []
    with reading_ahead([("plant", path) for path in files]):
        for path in files:
            try:
                found.append(int(sandbox.decode("planted:read", path, {}, what="plant").rgb_HW3.max()))
            except SampleError:
                found.append(None)
    assert found == [n if name.startswith("fine") else None for n, name in enumerate(names)]


def test_what_was_said_of_the_order_need_not_be_kept(planted: Path) -> None:
    """Files that are left out, read in another way, or again, come as they are asked for."""
    files = [planted / f"fine-{n}" for n in range(9)]
    for path in files:
        path.touch()
    with reading_ahead([("plant", path) for path in files]):
        for n in (0, 1, 5, 5, 2, 8):
            assert sandbox.decode("planted:read", files[n], {}, what="plant").rgb_HW3.max() == n
            assert sandbox.decode("planted:read", files[n], {"other": 1}, what="plant").rgb_HW3.max() == n


def test_the_decoder_knows_no_secret(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment holds no key, torch is not imported, and it stands where we stand."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.chdir(planted)
    Path("see-0").touch()
    with pytest.raises(SampleError) as seen:
        decode(Path("see-0"))
    assert "KEY" not in str(seen.value)
    assert "False" in str(seen.value)
    (planted / "inner").mkdir()
    monkeypatch.chdir(planted / "inner")
    Path("see-0").touch()
    with pytest.raises(SampleError, match="inner"):
        decode(Path("see-0"))


def test_a_missing_library_is_no_fault_of_the_file(planted: Path) -> None:
    """Where a reader cannot be imported, that is said, and no sample is quarantined for it."""
    (planted / "lacking.py").write_text("import no_such_library\n")
    (planted / "a").touch()
    with pytest.raises(MissingDependencyError, match="no_such_library"):
        sandbox.decode("lacking:read", planted / "a", {}, what="plant")


def test_a_decoder_that_does_not_start_ends_the_run(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is no fault of the samples: none of them is refused for it."""
    monkeypatch.setattr(sandbox, "_START", "raise SystemExit('no such thing')")
    (planted / "fine-1").touch()
    with pytest.raises(UniBindError, match="cannot start a decoder process: no such thing") as refused:
        decode(planted / "fine-1")
    assert not isinstance(refused.value, SampleError)
    monkeypatch.setattr(sandbox.sys, "executable", str(planted / "no-python"))
    with pytest.raises(UniBindError, match="cannot start a decoder process: No such file"):
        decode(planted / "fine-1")


def test_names_of_any_bytes_are_found(planted: Path) -> None:
    """A file whose name is no UTF-8 is read, and so is one in another script."""
    for name in ("木-5", os.fsdecode(b"\xff-5")):
        assert decode(planted / name).rgb_HW3.max() == 5


def test_a_decoder_outlives_no_parent(planted: Path) -> None:
    """A process that never returns from a file ends by its own limit where its parent was killed."""
    code = f"""
import sys
sys.path.insert(0, {str(planted)!r})
from pathlib import Path
from data.readers import FileBudget, use_budget
from data.readers.sandbox import pool as sandbox
use_budget(FileBudget(seconds=2, memory=200_000_000))
sandbox.warm_up()
print(sandbox._pool()._idle[0]._process.pid, flush=True)
sandbox.decode("planted:read", Path({str(planted / "spin-1")!r}), {{}}, what="plant")
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    decoder = int(parent.stdout.readline())
    while not (planted / "log").exists():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 300
    while _runs(decoder) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _runs(decoder)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended; nobody has asked how


@pytest.mark.parametrize("each", formats(), ids=lambda each: f"{each.modality}{each.ending}")
def test_the_bits_are_those_of_this_process(each: Format, tmp_path: Path) -> None:
    """Every format gives the same arrays, in the same layout, and the same numbers as read here."""
    files = [tmp_path / f"{number}{each.ending}" for number in range(len(each.contents))]
    for path, content in zip(files, each.contents, strict=True):
        path.write_bytes(content)
    with reading_ahead([(each.modality, path) for path in files]):
        for path in files:
            theirs, ours = read(each.modality, path), read_here(each.modality, path)
            assert type(theirs) is type(ours)
            for field in fields(ours):
                one, other = getattr(theirs, field.name), getattr(ours, field.name)
                if isinstance(other, np.ndarray):
                    assert (one.dtype, one.shape, one.strides) == (other.dtype, other.shape, other.strides)
                    assert one.tobytes() == other.tobytes()
                    assert one.flags.writeable
                else:
                    assert one == other


@pytest.mark.parametrize(
    "each",
    [each for each in formats() if each.modality != "text"],
    ids=lambda each: f"{each.modality}{each.ending}",
)
def test_drawings_have_the_bits_of_this_process(each: Format, tmp_path: Path) -> None:
    """Every format is drawn in the decoder process as it is here."""
    files = [tmp_path / f"{number}{each.ending}" for number in range(len(each.contents))]
    for path, content in zip(files, each.contents, strict=True):
        path.write_bytes(content)
    with reading_ahead([(each.modality, path) for path in files]):
        for path in files:
            theirs, ours = drawn(each.modality, path), render(read_here(each.modality, path))
            assert [view.tobytes() for view in theirs] == [view.tobytes() for view in ours]
            assert [view.shape for view in theirs] == [view.shape for view in ours]


def test_a_text_has_no_drawing(tmp_path: Path) -> None:
    """To ask for it is a mistake of the caller, not of the file."""
    (tmp_path / "a.txt").write_text("a cup")
    with pytest.raises(ValueError, match="no rendering"):
        drawn("text", tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("kind", "reason", "times"),
    [
        ("spin", "took longer than 0.3 s", 1),
        ("segv", "crashed on it (SIGSEGV)", 2),
        ("eat", "needed more than 200 MB of memory", 1),
        ("raise", "not a readable plant ('no\\nstep')", 1),
    ],
)
def test_a_step_has_the_limits_of_a_reader(kind: str, reason: str, times: int, planted: Path) -> None:
    """What a step does to its process costs one file; the next one is read, and its step taken."""

    def stepped(name: str, **options: Any) -> Any:
        return sandbox.decode(
            "planted:read", planted / name, {}, what="plant", step="planted:step", step_options=options
        )

    with pytest.raises(SampleError) as refused:
        stepped("fine-7", kind=kind)
    assert str(refused.value).startswith(f"{planted / 'fine-7'}: ")
    assert reason in str(refused.value)
    assert tries(planted) == ["fine-7"] * times
    one, two = stepped("fine-8", kind="double")
    assert (one.max(), two.max()) == (8, 16)


def test_a_step_has_a_budget_of_its_own(planted: Path) -> None:
    """What was decoded does not count in it: 150 MB and then 150 more, where 200 are allowed."""
    use_budget(FileBudget(seconds=60, memory=SHORT.memory))
    kept, more = sandbox.decode(
        "planted:read",
        planted / "large-7",
        {},
        what="plant",
        step="planted:step",
        step_options={"kind": "more"},
    )
    assert kept.nbytes + more.nbytes == 300_000_000


def test_files_ahead_are_those_of_the_same_step(planted: Path) -> None:
    """What a file was read ahead for is not given out as the result of a step, nor the reverse."""
    files = [planted / f"fine-{number}" for number in range(4)]
    with reading_ahead([("image", path) for path in files]):
        assert decode(files[0]).rgb_HW3.max() == 0
        one, two = sandbox.decode(
            "planted:read", files[1], {}, what="plant", step="planted:step", step_options={"kind": "double"}
        )
        assert (one.max(), two.max()) == (1, 2)
        assert decode(files[2]).rgb_HW3.max() == 2


def test_clips_come_through(tmp_path: Path) -> None:
    """`read_clips` gives the same frames from a decoder process."""
    (mp4,) = (each for each in formats() if each.ending == ".mp4")
    (tmp_path / "a.mp4").write_bytes(mp4.contents[0])
    how: Any = {"clips": 2, "frames": 3, "seconds": 0.2, "short_side": 16}
    assert np.array_equal(read_clips(tmp_path / "a.mp4", **how), read_clips_here(tmp_path / "a.mp4", **how))


def test_many_large_files_ahead(tmp_path: Path) -> None:
    """Pictures that fill the shared memory several times over come through, in order."""
    files = [tmp_path / f"{number}.bmp" for number in range(20)]
    for number, path in enumerate(files):
        Image.new("RGB", (1500, 1000), (number, 0, 0)).save(path)
    with reading_ahead([("image", path) for path in files]):
        found = [read("image", path) for path in files]
    assert [each.rgb_HW3[-1, -1, 0] for each in found if isinstance(each, Picture)] == list(range(20))


def test_layouts_and_texts_travel() -> None:
    """Fortran's order is kept, and so is a text of any characters."""
    memory = os.memfd_create("test")
    try:
        array = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
        message, end = put(array, memory, at=8)
        found = take(message, memory)
        assert isinstance(found, np.ndarray)
        assert found.strides == array.strides
        assert np.array_equal(found, array)
        assert end == 8 + array.nbytes
        text = Text("木 \ud83d\ude00 \x1b")
        assert take(put(text, memory)[0], memory) == text
    finally:
        os.close(memory)
