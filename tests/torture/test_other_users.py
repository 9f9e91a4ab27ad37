"""A file that another user alone may read is told as that, never as damage that asks to be deleted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.seals import seal

ROOT = Path(__file__).parents[2]
# The modes of files hold for root only where it has given up its powers.
_READ = """\
import os, sys
from pathlib import Path
from bench.torture.disk import give_up_power
from data.errors import DamagedError
from data.reads import reading
from kb_builder.browse.sources import unreadable
if os.geteuid() == 0:
    give_up_power()
path = Path(sys.argv[1])
for checked in (True, False):
    try:
        reading(path, checked=checked)
    except DamagedError as error:
        print(error)
print(unreadable(path))
"""


@pytest.mark.parametrize("sealed", [True, False])
def test_a_file_that_another_user_alone_may_read(tmp_path: Path, sealed: bool) -> None:
    """With a checksum or without, and by DuckDB: one line that says so, and does not say "delete it"."""
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(b"PAR1")
    if sealed:
        seal(tmp_path, [path], "encode")
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, 65_534, 65_534)
        path.chmod(0o600)
    told = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    line = f"{path}: this user may not read it (permission denied); change its mode or its owner\n"
    assert told == 3 * line
