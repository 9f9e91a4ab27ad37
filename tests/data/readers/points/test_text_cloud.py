"""Clouds as text: what scanners and CloudCompare write; columns are never taken for what they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.errors import SampleError
from data.readers import read_here
from data.readers.payload import AnyArray, Bytes, Floats, Points
from data.readers.points.colours import as_colours, named_colours

COUNT = 60


@pytest.fixture
def xyz() -> Floats:
    return np.random.default_rng(0).normal(size=(COUNT, 3)).round(4).astype(np.float32)


@pytest.fixture
def rgb() -> Bytes:
    return np.random.default_rng(1).integers(0, 256, (COUNT, 3)).astype(np.uint8)


INTENSITY = np.random.default_rng(2).integers(-2048, 2048, (COUNT, 1))
SMALL = np.random.default_rng(3).integers(0, 256, (COUNT, 1))
NORMALS = np.abs(np.random.default_rng(4).normal(size=(COUNT, 3)))
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)


def text_of(*columns: AnyArray, between: str = " ", point: str = ".") -> str:
    rows = np.hstack([column.astype(np.float64) for column in columns])
    return "\n".join(between.join(f"{value:.6g}".replace(".", point) for value in row) for row in rows) + "\n"


def save(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def cloud_of(path: Path) -> Points:
    payload = read_here("point", path)
    assert isinstance(payload, Points)
    return payload


def assert_is(path: Path, xyz: Floats, rgb: Bytes | None) -> None:
    cloud = cloud_of(path)
    np.testing.assert_allclose(cloud.xyz_N3, xyz, rtol=1e-6)
    if rgb is None:
        assert cloud.rgb_N3 is None
    else:
        assert cloud.rgb_N3 is not None
        np.testing.assert_array_equal(cloud.rgb_N3, rgb)


@pytest.mark.parametrize("head", ["60\n", "", "# scanned\n60\n"])
def test_leica_pts_keeps_intensity_out_of_colours(head: str, xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """x y z intensity r g b, with the count that Leica writes first or without: negative or 0…255."""
    for intensity in (INTENSITY, SMALL, np.full((COUNT, 1), 40)):
        assert_is(save(tmp_path / "a.pts", head + text_of(xyz, intensity, rgb)), xyz, rgb)
        assert_is(save(tmp_path / "a.pts", head + text_of(xyz, intensity)), xyz, None)
    assert_is(save(tmp_path / "a.pts", head + text_of(xyz, rgb)), xyz, rgb)


def test_a_pts_of_several_scans_is_read_whole(xyz: Floats, tmp_path: Path) -> None:
    """Each scan has its count; together they must be all points."""
    one, two = text_of(xyz[:20]), text_of(xyz[20:])
    assert_is(save(tmp_path / "a.pts", f"20\n{one}40\n{two}"), xyz, None)
    with pytest.raises(SampleError, match="60 of 61 declared"):
        cloud_of(save(tmp_path / "a.pts", f"20\n{one}41\n{two}"))


@pytest.mark.parametrize("between", [" ", "\t", ",", ", ", ";", " ; ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators(between: str, end: str, xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Blanks, tabs, commas and semicolons part numbers with decimal points."""
    text = text_of(xyz, rgb, between=between).replace("\n", end)
    assert_is(save(tmp_path / "a.xyz", text), xyz, rgb)


@pytest.mark.parametrize("between", [" ", "\t", ";", "; "])
def test_decimal_commas(between: str, xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Excel and CloudCompare write `0,125 -0,132` on many European machines."""
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, between=between, point=",")), xyz, None)
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, rgb, between=between, point=",")), xyz, rgb)


@pytest.mark.parametrize(("between", "point"), [(",", ","), (", ", ",")])
def test_commas_of_two_meanings_are_refused(between: str, point: str, xyz: Floats, tmp_path: Path) -> None:
    """`0,125,-0,132,0,640` may be six whole numbers: it is nothing to guess at."""
    with pytest.raises(SampleError, match="decimal points"):
        cloud_of(save(tmp_path / "a.xyz", text_of(xyz, between=between, point=point)))
    with pytest.raises(SampleError, match="decimal points"):
        cloud_of(save(tmp_path / "a.xyz", "1,234.5 2,345.5 3,456.5\n" * 20))


@pytest.mark.parametrize(
    "head",
    ["x y z r g b", "X,Y,Z,R,G,B", "//X Y Z R G B", "# x y z red green blue", '"x";"y";"z";"r";"g";"b"',
     "//X Y Z Rf Gf Bf", "60\nX Y Z R G B", "//X Y Z R G B\n60",
     "X[m] Y[m] Z[m] R G B", "% a scan\nx\ty\tz\tr\tg\tb"],
)  # fmt: skip
def test_a_header_names_the_columns(head: str, xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Bare, in comments, in quotes, with units; as CloudCompare, pandas and scanners write it."""
    assert_is(save(tmp_path / "a.xyz", f"{head}\n{text_of(xyz, rgb)}"), xyz, rgb)


def test_the_index_that_pandas_writes_is_no_coordinate(xyz: Floats, tmp_path: Path) -> None:
    """`DataFrame.to_csv` writes a first column without a name."""
    text = ",x,y,z\n" + text_of(np.arange(COUNT)[:, None], xyz, between=",")
    assert_is(save(tmp_path / "a.xyz", text), xyz, None)


@pytest.mark.parametrize(("between", "end"), [(";", ";"), (",", ","), (", ", ", "), ("\t", "\t")])
def test_a_separator_may_end_a_line(between: str, end: str, xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """As some programs write it: it parts nothing."""
    text = text_of(xyz, rgb, between=between).replace("\n", f"{end}\n")
    assert_is(save(tmp_path / "a.xyz", text), xyz, rgb)


def test_commas_within_places_and_blanks_between(xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """`0.1,0.2,0.3 255 0 0`: a comma behind a decimal point parts numbers."""
    rows = zip(text_of(xyz + 10.5, between=",").splitlines(), text_of(rgb).splitlines(), strict=True)
    (tmp_path / "a.xyz").write_text("\n".join(f"{place} {colour}" for place, colour in rows))
    cloud = cloud_of(tmp_path / "a.xyz")
    np.testing.assert_allclose(cloud.xyz_N3, xyz + 10.5, atol=1e-4)
    np.testing.assert_array_equal(cloud.rgb_N3, rgb)


def test_a_header_counts_more_than_the_order(xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Columns go by their names, wherever they stand; intensity and normals are dropped."""
    text = text_of(INTENSITY, rgb, xyz[:, ::-1], NORMALS)
    head = "intensity,b,g,r,z,y,x,nx,ny,nz\n"
    assert_is(save(tmp_path / "a.txt", head + text), xyz, rgb[:, ::-1])
    assert_is(save(tmp_path / "a.txt", "x y z i j k\n" + text_of(xyz, rgb)), xyz, None)
    sixteen = rgb.astype(np.int64) * 257
    assert_is(save(tmp_path / "a.txt", "x y z r g b\n" + text_of(xyz, sixteen)), xyz, rgb)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("east north up", "neither numbers nor"),
        ("x y z r g", "names 5 columns"),
        ("x y z", "names 3 columns"),
    ],
)
def test_headers_that_do_not_fit_are_refused(
    head: str, reason: str, xyz: Floats, rgb: Bytes, tmp_path: Path
) -> None:
    """Other names, too few names: what the columns are is not guessed."""
    with pytest.raises(SampleError, match=reason):
        cloud_of(save(tmp_path / "a.xyz", f"{head}\n{text_of(xyz, rgb)}"))
    prose = "# the x y z of my garden, measured by hand\n"
    assert_is(save(tmp_path / "b.xyz", prose + text_of(xyz, rgb)), xyz, rgb)


def test_normals_are_never_colours(xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Normals that all point into the positive octant, or all straight up, stay normals in every ending."""
    up = np.tile([0.0, 0.0, 1.0], (COUNT, 1))
    for normals in (NORMALS, up):
        for ending in ("xyz", "txt", "pts", "xyzn"):
            assert_is(save(tmp_path / f"a.{ending}", text_of(xyz, normals)), xyz, None)
        np.save(tmp_path / "a.npy", np.hstack([xyz, normals]))
        assert_is(tmp_path / "a.npy", xyz, None)
        assert_is(save(tmp_path / "a.xyz", text_of(xyz, normals, rgb)), xyz, rgb)
        assert_is(save(tmp_path / "a.xyz", text_of(xyz, rgb, normals)), xyz, rgb)
    assert_is(save(tmp_path / "a.xyzn", text_of(xyz, rgb / 255)), xyz, None)


def test_what_fits_two_rules_is_left_away(xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Seven columns where the fourth may be red or an intensity, zeros and ones, scalars: geometry alone."""
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, SMALL, rgb)), xyz, None)
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, INTENSITY, rgb)), xyz, rgb)
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, rgb, INTENSITY)), xyz, rgb)
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, (rgb > 127) * 1)), xyz, None)
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, rgb / 100)), xyz, None)
    assert_is(save(tmp_path / "a.xyz", text_of(xyz, SMALL, SMALL)), xyz, None)
    with pytest.raises(SampleError, match="counts the points"):
        cloud_of(save(tmp_path / "a.xyz", text_of(np.arange(COUNT)[:, None], xyz)))


def test_xyzrgb_must_hold_colours(xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Its ending says so: bytes, or fractions; anything else is refused."""
    assert_is(save(tmp_path / "a.xyzrgb", text_of(xyz, rgb)), xyz, rgb)
    assert_is(save(tmp_path / "a.xyzrgb", text_of(xyz, rgb / 255)), xyz, rgb)
    for columns in ((xyz,), (xyz, -NORMALS), (xyz, INTENSITY, rgb)):
        with pytest.raises(SampleError, match="no colours"):
            cloud_of(save(tmp_path / "a.xyzrgb", text_of(*columns)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_comments_may_be_in_any_letters(encoding: str, xyz: Floats, tmp_path: Path) -> None:
    """An author's name, a byte-order mark: comments hold no points."""
    assert_is(save(tmp_path / "a.xyz", "# Jürgen, Größe\n" + text_of(xyz), encoding), xyz, None)
    assert_is(save(tmp_path / "b.xyz", text_of(xyz), encoding), xyz, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3\n" * 20 + "1 2\n", "not a readable"),
        ("1 2\n" * 20, "2 numbers per line"),
        ("", "empty|fewer than"),
        ("# nothing\n", "fewer than"),
        ("x y z\n", "fewer than"),
        ("1 2 3\n" * 20 + "end of file\n", "not a readable"),
        ("1 2 3\n" * 20 + "\0\0\0", "not text"),
    ],
)
def test_torn_text_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    """Lines of other lengths, no points at all, words among numbers: one line."""
    with pytest.raises(SampleError, match=reason):
        cloud_of(save(tmp_path / "a.xyz", text))


def test_colours_before_coordinates_need_a_header(xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """Columns r g b x y z are refused, not read as a cloud of colours; a header says what they are."""
    lines = text_of(rgb, xyz)
    with pytest.raises(SampleError, match="look like colours"):
        cloud_of(save(tmp_path / "a.xyz", lines))
    assert_is(save(tmp_path / "a.xyz", f"r g b x y z\n{lines}"), xyz, rgb)
    grid = rgb.astype(np.float32)  # whole coordinates, with normals
    assert_is(save(tmp_path / "a.xyz", text_of(grid, NORMALS)), grid, None)


@pytest.mark.parametrize("start", [0, 1, 5, 1000])
def test_a_column_that_counts_is_no_coordinate(start: int, xyz: Floats, tmp_path: Path) -> None:
    """Rows cut out of a numbered table begin at any number."""
    counts = np.arange(start, start + COUNT)[:, None]
    with pytest.raises(SampleError, match="counts the points"):
        cloud_of(save(tmp_path / "a.xyz", text_of(counts, xyz)))


def test_named_colours_of_every_depth() -> None:
    """Bytes, 16 bits, fractions; NaN, negatives and fractions beyond one are none."""
    assert named_colours(np.array([[0, 128, 255]], np.uint8)) is not None
    for given in (np.array([[0, 32896, 65535]], np.uint16), np.array([[0, 32896, 65535.0]])):
        np.testing.assert_array_equal(named_colours(given), [[0, 128, 255]])
    np.testing.assert_array_equal(named_colours(np.array([[0, 0.5, 1]])), [[0, 128, 255]])
    np.testing.assert_array_equal(named_colours(np.array([[0, 0, 1]], np.int64)), [[0, 0, 1]])
    for odd in ([[0, 0, np.nan]], [[-1, 0, 0]], [[0.5, 0, 300.5]], [[0, 0, 1e9]]):
        assert named_colours(np.array(odd)) is None
        assert as_colours(np.array(odd)) is None


def test_opacity_is_no_colour(xyz: Floats, rgb: Bytes, tmp_path: Path) -> None:
    """A PTS of x y z r g b 255 holds no intensity: its colours do not move on by one column."""
    opaque = np.full((COUNT, 1), 255)
    path = save(tmp_path / "a.pts", text_of(xyz, rgb, opaque))
    np.testing.assert_array_equal(read_here("point", path).rgb_N3, rgb)  # type: ignore[union-attr]
