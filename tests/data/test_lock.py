"""One writer at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import KnowledgeBaseError
from data.lock import lock_holder, shared_lock, write_lock

HOLD = (
    "import sys, time; from pathlib import Path; from data.lock import write_lock\n"
    "with write_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_a_second_writer_is_told_who_holds_it_and_kill_9_frees_it(tmp_path: Path) -> None:
    """The message names process and host; when the holder is killed the next writer gets in at once."""
    path = tmp_path / "ledger.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(KnowledgeBaseError, match=f"written by process {holder.pid} on .*run again"),
            write_lock(path),
        ):
            pytest.fail("two writers")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with write_lock(path):
        assert f'"pid": {os.getpid()}' in path.read_text()


def test_a_lock_can_be_taken_again(tmp_path: Path) -> None:
    """The end of the block frees the lock, also when the block fails; what a dead holder left is ignored."""
    path = tmp_path / "ledger.lock"
    path.write_text('{"pid": 1, "host": "gone"}')
    with pytest.raises(ZeroDivisionError), write_lock(path):
        raise ZeroDivisionError
    with write_lock(path):
        pass


def test_an_unsigned_lock_has_a_message_too(tmp_path: Path) -> None:
    """A holder that has not yet written its name is "another process"."""
    path = tmp_path / "ledger.lock"
    with write_lock(path):
        path.write_text("")
        with pytest.raises(KnowledgeBaseError, match="another process"), write_lock(path):
            pytest.fail("two writers")


def test_a_folder_that_is_removed_meanwhile_is_no_success(tmp_path: Path) -> None:
    """Another process could have locked a new file of the same name: the end of the block says so."""
    path = tmp_path / "run" / "run.lock"
    with pytest.raises(KnowledgeBaseError, match="was removed or replaced"), write_lock(path) as check:
        check()
        shutil.rmtree(path.parent)
        with pytest.raises(KnowledgeBaseError, match="run the same command again"):
            check()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_cannot_be_a_lock(tmp_path: Path, kind: str) -> None:
    """Neither a pipe, whose opening may wait, nor a device is taken for one."""
    path = tmp_path / "run.lock"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/full")
    with pytest.raises(KnowledgeBaseError, match=r"run\.lock is not a regular file"), write_lock(path):
        pytest.fail("it was locked")


def test_sharers_exclude_a_writer_and_a_writer_excludes_them(tmp_path: Path) -> None:
    """Several hold the lock together; a writer is told what they are, and gets in when the last has gone."""
    path = tmp_path / "run.lock"
    with shared_lock(path, "part jobs"):
        with (
            shared_lock(path, "part jobs"),
            pytest.raises(
                KnowledgeBaseError, match=f"written by part jobs, such as process {os.getpid()} on"
            ),
            write_lock(path),
        ):
            pytest.fail("a writer beside sharers")
        with pytest.raises(KnowledgeBaseError, match="part jobs"), write_lock(path):
            pytest.fail("a writer beside a sharer")
    with (
        write_lock(path),
        pytest.raises(KnowledgeBaseError, match="written by process"),
        shared_lock(path, "part jobs"),
    ):
        pytest.fail("a sharer beside a writer")


def test_a_sharer_notices_that_its_folder_is_gone(tmp_path: Path) -> None:
    """As a writer does."""
    path = tmp_path / "run" / "run.lock"
    with pytest.raises(KnowledgeBaseError, match="removed or replaced"), shared_lock(path, "part jobs"):
        shutil.rmtree(path.parent)


def test_a_look_at_a_lock_says_who_holds_it_and_what_it_does(tmp_path: Path) -> None:
    """Without locking; nobody where it is free, where its holder was killed, and where its file is odd."""
    path = tmp_path / "run.lock"
    assert lock_holder(path) is None
    with write_lock(path, "encode"):
        holder = lock_holder(path)
        assert holder is not None and (holder.pid, holder.doing) == (os.getpid(), "encode")
    assert lock_holder(path) is None
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = holder.host
    path.write_text(f'{{"pid": {gone.pid}, "host": "{host}"}}')
    assert lock_holder(path) is None
    path.write_text('{"pid": 1, "host": "elsewhere"}')
    elsewhere = lock_holder(path)
    assert elsewhere is not None and elsewhere.doing is None
    with shared_lock(path, "part jobs"):
        assert lock_holder(path) is None
    assert "part jobs" in path.read_text() and lock_holder(path) is None
    for odd in ("{", "[]", '{"pid": "x", "host": 1}', "\x00"):
        path.write_text(odd)
        assert lock_holder(path) is None
