"""Drawn splits keep shares, objects and categories, and are drawn alike every time."""

from __future__ import annotations

from collections import Counter

from data.benchmarks.splits import draw_val, fold_splits, limit
from data.sample import Sample


def samples(n: int, category: str = "a", *, per_object: int = 1) -> list[Sample]:
    return [
        Sample(
            f"{category}{i}", "image", f"{category}{i}", "train", category, f"{category}-o{i // per_object}"
        )
        for i in range(n)
    ]


def test_a_tenth_of_each_category_is_val() -> None:
    """The share holds within each category, and the order of the samples does not matter."""
    given = samples(100) + samples(30, "b")
    drawn = draw_val(given)
    assert Counter((s.category_id, s.split) for s in drawn) == {
        ("a", "train"): 90,
        ("a", "val"): 10,
        ("b", "train"): 27,
        ("b", "val"): 3,
    }
    assert [s.sample_id for s in drawn] == [s.sample_id for s in given]
    again = {s.sample_id: s.split for s in draw_val(given[::-1])}
    assert again == {s.sample_id: s.split for s in drawn}


def test_objects_go_together_and_the_last_stays() -> None:
    """Clips of one recording share a split; a category's only recording is trained on."""
    drawn = draw_val(samples(60, per_object=4))
    for name in {s.object_id for s in drawn}:
        assert len({s.split for s in drawn if s.object_id == name}) == 1
    assert {s.split for s in draw_val(samples(40, per_object=40))} == {"train"}


def test_a_recording_of_two_categories_goes_as_one() -> None:
    """In UrbanSound8K one recording may hold a dog and a siren: its clips never stand in train and val."""
    dogs, sirens = samples(60, "dog", per_object=4), samples(40, "siren", per_object=8)
    shared = [
        Sample(f"{category}-{i}", "audio", f"{category}-{i}", "train", category, f"both-{i}")
        for category in ("dog", "siren")
        for i in range(40)
    ]
    drawn = draw_val([*dogs, *sirens, *shared], share=0.5)
    split_of = {s.object_id: s.split for s in drawn}
    assert all(split_of[s.object_id] == s.split for s in drawn)
    assert {(s.category_id, s.split) for s in drawn} == {
        (category, split) for category in ("dog", "siren") for split in ("train", "val")
    }
    alone = [Sample(c, "audio", c, "train", c, "one") for c in ("a", "b")] + samples(20, "a")
    assert {s.split for s in draw_val(alone) if s.object_id == "one"} == {"train"}  # b's only recording


def test_test_samples_stay_test() -> None:
    """Only the train split gives val samples; a fold is test, and without one all is."""
    pairs = [(sample, 1 + i % 5) for i, sample in enumerate(samples(50))]
    drawn = draw_val(fold_splits(pairs, 2))
    assert [s.sample_id for s in drawn if s.split == "test"] == [
        s.sample_id for s, fold in pairs if fold == 2
    ]
    assert {s.split for s in fold_splits(pairs, None)} == {"test"}


def test_a_limit_holds_for_each_category_and_split() -> None:
    """It keeps the order, and a larger limit keeps what a smaller one kept."""
    given = draw_val(samples(100) + samples(30, "b"))
    few, more = limit(given, 2), limit(given, 5)
    assert set(Counter((s.category_id, s.split) for s in few).values()) == {2}
    assert {s.sample_id for s in few} < {s.sample_id for s in more}
    assert [s for s in given if s in few] == few
