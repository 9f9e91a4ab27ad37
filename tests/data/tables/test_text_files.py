"""data.tables.text_files: encodings and byte-order marks, and TOML from any editor."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import ManifestError, ProjectError
from data.tables.text_files import read_text, read_toml


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_marked_encoding_and_line_ending_reads_alike(tmp_path: Path, encoding: str) -> None:
    """A mark is dropped, and each line ends as on Unix."""
    (tmp_path / "a.txt").write_bytes("é\r\nb\rc\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "é\nb\nc\n"


def test_text_that_cannot_be_read_is_the_callers_error(tmp_path: Path) -> None:
    """No file, a folder, a NUL in the path, too many bytes: the error that the caller names."""
    (tmp_path / "a.txt").write_text("abcde")
    with pytest.raises(ProjectError, match="larger than 4 bytes"):
        read_text(tmp_path / "a.txt", ProjectError, most_bytes=4)
    assert read_text(tmp_path / "a.txt", ProjectError, most_bytes=5) == "abcde"
    for path in (tmp_path, tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(ManifestError, match="cannot be read"):
            read_text(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_toml_of_notepad_and_powershell(tmp_path: Path, encoding: str) -> None:
    """Notepad writes UTF-8 with a mark, PowerShell 5 UTF-16: both are TOML here."""
    (tmp_path / "a.toml").write_bytes('name = "é"\r\n'.encode(encoding))
    assert read_toml(tmp_path / "a.toml", ProjectError) == {"name": "é"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = \n", "not valid TOML: .* line 1"),
        (b'a = "\xe9"\n', "as Windows-1252"),
        (b"a = " + b"[" * 20_000, "nested too deeply"),
        (b"a = " + b"{b = " * 20_000, "nested too deeply"),
        (b"a = " + b"9" * 5_000, "not valid TOML: Exceeds the limit"),
        (b"[a]\nb = 99999999999999999999\n", "a.b: a number of more than 64 bits"),
        (b'[a]\nb = [{ c = "x\\u001b[31m" }]\n', r"a.b.c: holds the control character '\\x1b'"),
        (b'"a\\u009b" = 1\n', r"'a\\x9b': a control character in a key"),
        (b"a = 2024-02-31\n", "not valid TOML"),
        (b"#" * (2 << 20), "larger than 1,048,576 bytes"),
        (b"a" + b".a" * 50 + b" = 1\n", "nested too deeply"),
        (b"[" + b"a." * 9_000 + b"a]\n", "a line with more than 200 dots"),
    ],
)
def test_toml_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    """Whatever the parser raises, the caller's error names the file."""
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ProjectError, match=rf"a\.toml: .*{message}"):
        read_toml(tmp_path / "a.toml", ProjectError)
