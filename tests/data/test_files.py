"""Files are whole or absent, and a full disk says where."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.files import atomic_path, hash_file


class RustError(Exception):
    """An error as safetensors raises it."""


@pytest.mark.parametrize(
    "thrown",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RustError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_names_the_file(tmp_path: Path, thrown: Exception) -> None:
    """Whichever library writes, it is an OSError with the place, and the old file stays."""
    target = tmp_path / "heads.safetensors"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="No space left on device") as caught, atomic_path(target) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise thrown
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_text(encoding="utf-8") == "old"


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    """A bug is not taken for the disk's fault."""
    with pytest.raises(ValueError, match="a bug"), atomic_path(tmp_path / "x"):
        raise ValueError("a bug")


def test_two_writers_have_two_temporary_files(tmp_path: Path) -> None:
    """Of one process, or of two that have the same number on two machines: none writes into the other's."""
    target = tmp_path / "table.parquet"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first", encoding="utf-8")
        second.write_text("second", encoding="utf-8")
    assert target.read_text(encoding="utf-8") == "first"  # the outer block ends last
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    """The error names what was to be written, not a name that is gone."""
    target = tmp_path / "metrics.json"
    target.mkdir()
    with pytest.raises(OSError) as caught, atomic_path(target) as temporary:
        temporary.write_text("{}", encoding="utf-8")
    assert caught.value.filename == str(target)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_the_hash_of_a_pipe_is_an_error(tmp_path: Path) -> None:
    """Nobody waits for what is never written."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        hash_file(tmp_path / "pipe")


def test_who_may_read_a_file_is_as_the_umask_says(tmp_path: Path) -> None:
    """safetensors makes its files private: a colleague could not use the heads of a shared run."""
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        try:
            target = tmp_path / f"{umask:o}.safetensors"
            with atomic_path(target) as temporary:
                save_file({"a": np.zeros(3, np.float32)}, temporary)
        finally:
            os.umask(before)
        assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
