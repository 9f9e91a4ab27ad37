"""data.splits: words for splits, and how they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from data.splits import SplitUnit, draw_splits, split_of_folder


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN_SET", "train"),
        ("train2017", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("dev", "val"),
        ("test", "test"),
        ("testing", "test"),
        ("test-images", "test"),
        ("trains", None),
        ("contest", None),
        ("dog", None),
        ("", None),
    ],
)
def test_words_for_splits(name: str, split: str | None) -> None:
    """Whole words in any case, with what people put behind them."""
    assert split_of_folder(name) == split


def things(
    n: int, *, category: str = "dog", files: int = 1, modalities: Sequence[str] = ("image",)
) -> list[SplitUnit]:
    return [SplitUnit(f"{category}{n}", category, frozenset(modalities), files) for n in range(n)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, {"test": 1}),
        (2, {"test": 1, "train": 1}),
        (3, {"test": 1, "train": 2}),
        (5, {"test": 1, "train": 3, "val": 1}),
        (10, {"test": 2, "train": 6, "val": 2}),
        (100, {"test": 20, "train": 60, "val": 20}),
    ],
)
def test_60_20_20_of_a_category(n: int, expected: dict[str, int]) -> None:
    """Of two things one is test, a single one is test; categories do not mix."""
    drawn = draw_splits([*things(n), *things(3, category="cat")])
    assert Counter(split for key, split in drawn.items() if key.startswith("dog")) == expected


def test_each_modality_has_its_share() -> None:
    """Things with other modalities are drawn by themselves."""
    both = [SplitUnit(f"both{n}", "dog", frozenset({"image", "audio"}), 2) for n in range(10)]
    drawn = draw_splits([*things(10), *both])
    assert Counter(drawn[thing.key] for thing in both) == {"test": 2, "train": 6, "val": 2}


def test_large_things_do_not_fill_a_split() -> None:
    """One thing of half the files is trained on; the shares are of files, as well as they can be."""
    large = SplitUnit("large", "dog", frozenset({"image"}), 50)
    drawn = draw_splits([large, *things(50)])
    assert drawn["large"] == "train"
    assert Counter(drawn.values()) == {"train": 11, "val": 20, "test": 20}


def test_the_draw_hangs_on_seed_and_keys_alone() -> None:
    """Order does not matter; another seed draws others."""
    some = things(20)
    assert draw_splits(some) == draw_splits(reversed(some))
    assert draw_splits(some) != draw_splits(some, seed=1)
