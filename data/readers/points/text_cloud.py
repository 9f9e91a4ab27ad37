"""Reads clouds as lines of numbers: XYZ, XYZN, XYZRGB, TXT, and PTS as laser scanners and ReCap write it.

Such files rarely declare their columns. They are identified by a header line if there is one, else by the
ending and by rules that the values must satisfy. Columns that fit no rule are dropped, never read as colours:

| columns | are |
|---|---|
| 3 | x y z |
| 4 | x y z and one more number (intensity): dropped |
| 6 | x y z and colours, if `as_colours` accepts them; `.xyzn`: normals; `.xyzrgb`: colours |
| 7 | `.pts`: x y z intensity r g b, or r g b 255. Else r g b + 1 or 1 + r g b: if both are possible, dropped
|
| 9 | x y z, normals of length one, and colours, in either order |
| others | x y z; the rest is dropped |

A header line names them: `x y z r g b`, `//X Y Z R G B Intensity`, `X;Y;Z`, … Ambiguous files are refused: a
comma that may be a decimal point or a separator, a first column that counts the points, colours before
coordinates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Bytes
from data.readers.points.colours import are_normals, as_colours, named_colours
from data.readers.untrusted import decoding

COMMENTS = ("#", "//", "%", "!")
AXES = ("x", "y", "z")
COLOURS = (("r", "g", "b"), ("red", "green", "blue"), ("rf", "gf", "bf"))
MAX_HEADER_LINES = 200

_NUMBER = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?$|[-+]?(nan|inf)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?$")
_POINT_THEN_COMMA = re.compile(r"\.\d*([eE][-+]?\d+)?,")
_ZERO_LED = re.compile(r"(^|,)\s*(-0\s*,|0\d)")  # integers are not written like this


def read_text_cloud(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None). Raises `SampleError` for malformed or ambiguous lines."""
    with decoding(path, "text cloud"):
        text = _decode(path.read_bytes())
        lines = [line for line in map(str.strip, text.splitlines()) if line]
    if "\0" in text:
        raise SampleError(f"{path}: contains NUL characters, so it is not text; export the cloud again")
    header, lines = _split_header(lines, path)
    lines = [line for line in lines if not line.startswith(COMMENTS)]
    lines = [line.partition("#")[0].rstrip() if "#" in line else line for line in lines]
    if not lines:
        return np.zeros((0, 3)), None
    lines = [line.rstrip(",; \t") for line in _without_counts(lines, path)]
    separator, lines = _separated(lines, path)
    with decoding(path, "text cloud"):
        columns_NC = np.loadtxt(lines, dtype=np.float64, delimiter=separator, ndmin=2, comments=None)
    if columns_NC.shape[1] < 3:
        raise SampleError(
            f"{path}: {columns_NC.shape[1]} numbers per line are not a point cloud; write x y z on each line"
        )
    if header is not None and not (header.comment and len(header.names) != columns_NC.shape[1]):
        return _by_header(columns_NC, header, path)
    return _by_rule(columns_NC, path)


def _decode(raw: bytes) -> str:
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return raw.decode("utf-16")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # comments by older programs
        return raw.decode("latin-1")


@dataclass(frozen=True, slots=True)
class _Header:
    names: tuple[str, ...]
    line: str
    comment: bool  # a comment line, which may be prose


def _split_header(lines: list[str], path: Path) -> tuple[_Header | None, list[str]]:
    """The header that names the columns, or None; and the lines from the first number on."""
    header = None
    counts: list[str] = []
    for number, line in enumerate(lines[:MAX_HEADER_LINES]):
        words = _words(line)
        if line.isdigit():  # the number of points that follow
            counts.append(line)
            continue
        if words and not line.startswith(COMMENTS) and _NUMBER.match(words[0]):
            return header, counts + lines[number:]
        names = tuple(_plain_name(word) for word in words)
        if set(AXES) <= set(names):
            header = _Header(names, line, line.startswith(COMMENTS))
        elif not line.startswith(COMMENTS):
            raise SampleError(
                f"{path}: its line {line[:60]!r} contains neither numbers nor column names x, y, z; remove it"
            )
    return header, [line for line in lines[MAX_HEADER_LINES:] if not line.startswith(COMMENTS)]


def _words(line: str) -> list[str]:
    words = [word for word in re.split(r"[\s;,]+", line.lstrip("#/%! ")) if word]
    return ["", *words] if line[0] in ",;" else words  # the index column of pandas has no name


def _plain_name(word: str) -> str:
    """`"X[m]"` as `x`."""
    return re.sub(r"[\[(].*", "", word).strip("\"'").lower()


def _without_counts(lines: list[str], path: Path) -> list[str]:
    """The lines of points. A line of one number counts the points that follow (PTS; one for each scan)."""
    is_count = [line.isdigit() for line in lines]
    if not any(is_count) or all(is_count):
        return lines
    declared = sum(int(line) for line, count in zip(lines, is_count, strict=True) if count)
    points = [line for line, count in zip(lines, is_count, strict=True) if not count]
    if declared != len(points):
        raise SampleError(
            f"{path}: {len(points):,} of {declared:,} declared points are there; fetch or export it again"
        )
    return points


def _separated(lines: list[str], path: Path) -> tuple[str | None, list[str]]:
    """The separator of numbers (None: white space), and the lines with decimal commas replaced by points."""
    sample = lines[0]
    if ";" in sample:
        return ";", _with_points(lines) if any("," in line for line in lines) else lines
    if not any("," in line for line in lines):
        return None, lines
    words = sample.split()
    dotted = any("." in line for line in lines)
    if len(words) == 1 or not any("," in word.strip(",") for word in words):  # 1,2,3 or 1, 2, 3
        if not dotted and any(map(_ZERO_LED.search, lines)):  # 0,125,-0,132,0,640
            raise _two_ways(path, sample)
        return ",", lines
    if dotted and _POINT_THEN_COMMA.search(sample):  # 0.1,0.2,0.3 255 0 0
        return None, [line.replace(",", " ") for line in lines]
    if dotted or len(words) < 3 or not all(_DECIMAL_COMMA.match(w) or "," not in w for w in words):
        raise _two_ways(path, sample)
    return None, _with_points(lines)


def _with_points(lines: list[str]) -> list[str]:
    return [line.replace(",", ".") for line in lines]


def _two_ways(path: Path, line: str) -> SampleError:
    return SampleError(
        f"{path}: its commas may separate numbers or be decimal points ({line[:60]!r}); "
        "write decimal points, and spaces between numbers"
    )


def _by_header(columns_NC: AnyArray, header: _Header, path: Path) -> tuple[AnyArray, Bytes | None]:
    names = header.names
    if len(names) != columns_NC.shape[1] or len(set(names)) != len(names):
        raise SampleError(
            f"{path}: its header names {len(names)} columns ({header.line[:60]!r}), its lines have "
            f"{columns_NC.shape[1]}; complete the header"
        )
    xyz_N3 = columns_NC[:, [names.index(axis) for axis in AXES]]
    for colours in COLOURS:
        if set(colours) <= set(names):
            rgb_N3 = named_colours(columns_NC[:, [names.index(colour) for colour in colours]])
            if rgb_N3 is None:
                raise SampleError(f"{path}: its colours are not in 0…1, 0…255 or 0…65535; export it again")
            return xyz_N3, rgb_N3
    return xyz_N3, None


def _by_rule(columns_NC: AnyArray, path: Path) -> tuple[AnyArray, Bytes | None]:
    """Columns by the rules of the table in the module docstring."""
    width, ending = columns_NC.shape[1], path.suffix.lower()
    xyz_N3, rest = columns_NC[:, :3], columns_NC[:, 3:]
    if width > 3 and _counts_points(columns_NC[:, 0]):
        raise SampleError(
            f"{path}: its first column counts the points; remove it, or name the columns x, y, z"
        )
    if width == 6 and _are_behind_colours(xyz_N3, rest):
        raise SampleError(
            f"{path}: its first three columns look like colours and the others like coordinates; name the "
            "columns in a first line such as `r g b x y z`"
        )
    if ending == ".xyzrgb":
        rgb_N3 = named_colours(rest) if width == 6 else None
        if rgb_N3 is None:
            raise SampleError(
                f"{path}: has no colours r g b after x y z; export it again, or rename it to .xyz"
            )
        return xyz_N3, rgb_N3
    if width == 6:
        return xyz_N3, None if ending == ".xyzn" else as_colours(rest)
    if width == 7:
        if ending == ".pts":
            opaque = bool((rest[:, 3] == 255).all()) and as_colours(rest[:, :3]) is not None
            return xyz_N3, as_colours(rest[:, :3] if opaque else rest[:, 1:])
        first, last = as_colours(rest[:, :3]), as_colours(rest[:, 1:])
        return xyz_N3, last if first is None else first if last is None else None
    if width == 9:
        if are_normals(rest[:, :3]):
            return xyz_N3, as_colours(rest[:, 3:])
        if are_normals(rest[:, 3:]):
            return xyz_N3, as_colours(rest[:, :3])
    return xyz_N3, None


def _are_behind_colours(first_N3: AnyArray, last_N3: AnyArray) -> bool:
    """Whether the first columns can be colours, and the last are neither these nor normals: r g b x y z."""
    are_bytes = bool(((first_N3 >= 0) & (first_N3 <= 255) & (first_N3 == np.rint(first_N3))).all())
    fractions = bool((last_N3 != np.rint(last_N3)).any())
    return are_bytes and fractions and as_colours(last_N3) is None and not are_normals(last_N3)


def _counts_points(column_N: AnyArray) -> bool:
    return len(column_N) > 2 and float(column_N[0]).is_integer() and bool((np.diff(column_N) == 1).all())
