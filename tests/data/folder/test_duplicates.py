"""data.folder.duplicates: equal bytes and near-duplicate pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data.folder import duplicates
from data.folder.duplicates import exact_duplicates, near_duplicates


def photo(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A picture with coarse and fine structure."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    return Image.blend(coarse, fine, 0.2)


def alike(paths: dict[str, Path]) -> list[tuple[str, str]]:
    """Compared with each other, all in one group."""
    return near_duplicates(paths, dict.fromkeys(paths))


def test_same_bytes(tmp_path: Path) -> None:
    """Groups of equal files; empty and missing ones are in none."""
    for name, content in {"a": b"1", "b": b"1", "c": b"2", "d": b"33", "e": b"", "f": b""}.items():
        (tmp_path / name).write_bytes(content)
    assert exact_duplicates({name: tmp_path / name for name in "abcdefg"}) == [["a", "b"]]


@pytest.mark.parametrize("change", ["half", "tenth", "jpeg", "webp", "grown", "gif"])
def test_the_same_picture_saved_otherwise(tmp_path: Path, change: str) -> None:
    """In another size or format, each of twelve pictures is like itself and like no other."""
    paths = {}
    for seed in range(12):
        picture = photo(seed)
        paths[f"{seed}"] = tmp_path / f"{seed}.png"
        picture.save(paths[f"{seed}"])
        other = paths[f"{seed}-{change}"] = (
            tmp_path / f"{seed}-{change}.{'jpg' if change == 'jpeg' else 'png'}"
        )
        if change == "jpeg":
            picture.save(other, quality=30)
        elif change == "webp":
            other = paths[f"{seed}-{change}"] = other.with_suffix(".webp")
            picture.save(other, quality=60)
        elif change == "gif":
            other = paths[f"{seed}-{change}"] = other.with_suffix(".gif")
            picture.save(other)
        else:
            factor = {"half": 0.5, "tenth": 0.1, "grown": 2.3}[change]
            picture.resize((round(400 * factor), round(300 * factor))).save(other)
    pairs = {tuple(sorted(pair)) for pair in alike(paths)}
    assert pairs == {tuple(sorted((f"{seed}", f"{seed}-{change}"))) for seed in range(12)}


def test_drawings_on_white_are_not_all_alike(tmp_path: Path) -> None:
    """Small drawings share almost every pixel; and one shape in two colours is two pictures."""
    paths = {}
    for name, box, colour in (
        ("left", (20, 90, 40, 110), "black"),
        ("right", (160, 90, 180, 110), "black"),
        ("red", (60, 60, 140, 140), "red"),
        ("blue", (60, 60, 140, 140), "blue"),
        ("tall", (95, 40, 105, 160), "black"),
        ("wide", (40, 95, 160, 105), "black"),
    ):
        picture = Image.new("RGB", (200, 200), "white")
        ImageDraw.Draw(picture).rectangle(box, fill=colour)
        paths[name] = tmp_path / f"{name}.png"
        picture.save(paths[name])
    assert alike(paths) == []


def test_what_is_no_picture_is_like_none(tmp_path: Path) -> None:
    """Broken files have their line later, from their reader."""
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert alike({name: tmp_path / f"{name}.png" for name in "abc"}) == []


@pytest.mark.parametrize("most", [duplicates.MOST_PICTURES, 3])
def test_many_copies_are_connected_by_few_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Of n copies n - 1 pairs, each group connected by itself; also where there are too many for all."""
    monkeypatch.setattr(duplicates, "MOST_PICTURES", most)
    paths, group_of = {}, {}
    for seed in range(2):
        for number in range(6):
            name = f"{seed}-{number}"
            paths[name], group_of[name] = tmp_path / f"{name}.png", "even" if number % 2 == 0 else "odd"
            photo(seed).save(paths[name])
    pairs = near_duplicates(paths, group_of)
    assert len(pairs) == 2 * 5
    within = [pair for pair in pairs if group_of[pair[0]] == group_of[pair[1]]]
    assert len(within) == 2 * 2 * 2
    assert pairs[: len(within)] == within
    assert all(one[0] == other[0] for one, other in pairs)
