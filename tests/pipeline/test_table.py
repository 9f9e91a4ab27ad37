"""The result table: what it says of LLM centers and their controls, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.table import (
    anchor_names,
    recognition_rows,
    result_table,
    result_table_markdown,
    split_mean,
    verdict,
)


def record(
    modality: str, split: str, anchors: str, top1: float, *, half: float = 0.05, **other: Any
) -> dict[str, Any]:
    """One row of metrics.json with an interval of `half` to either side."""
    row = {
        "modality": modality,
        "split": split,
        "anchors": anchors,
        "k": 50,
        "scorer": "nearest",
        "model": "aligned",
        "top1": top1,
        "top1_low": max(0.0, top1 - half),
        "top1_high": min(1.0, top1 + half),
        "top5": min(1.0, top1 + 0.2),
        "chance": 0.25,
        "n": 40,
    }
    return {**row, **other}


def metrics(*records: dict[str, Any]) -> dict[str, Any]:
    return {"recognition": list(records)}


MIXED = metrics(
    record("event", "unseen", "permuted", 0.10),
    record("event", "unseen", "llm_centers", 0.80),
    record("event", "unseen", "class_name", 0.60),
    record("image", "unseen", "llm_centers", 0.50),
    record("image", "unseen", "class_name", 0.52),
    record("image", "unseen", "permuted", 0.20),
    record("text", "unseen", "llm_centers", 1.0),
    record("text", "unseen", "class_name", 1.0),
    record("text", "unseen", "permuted", 0.0),
    record("image", "seen", "llm_centers", 0.30),
    record("image", "seen", "class_name", 0.90),
    record("image", "seen", "permuted", 0.0),
)


def test_rows_come_by_split_and_modality_with_their_controls_in_order() -> None:
    """Records in any order make rows in one order: seen before unseen, image before event."""
    rows = recognition_rows(MIXED)
    assert [(row.split, row.modality) for row in rows] == [
        ("seen", "image"),
        ("unseen", "image"),
        ("unseen", "text"),
        ("unseen", "event"),
    ]
    assert all(list(row.controls) == ["class_name", "permuted"] for row in rows)
    assert anchor_names(rows) == ["llm_centers", "class_name", "permuted"]


def test_a_row_knows_what_it_does_not_beat_and_how_surely() -> None:
    """Above, level and below are told apart, and so are overlapping and separate intervals."""
    seen, image, text, event = recognition_rows(MIXED)
    assert (seen.not_beaten(), seen.clearly_above()) == (("class_name",), ("class_name",))
    assert (image.not_beaten(), image.clearly_above()) == (("class_name",), ())
    assert text.not_beaten() == ("class_name",), "a tie is not a win"
    assert text.best() == ("llm_centers", "class_name")
    assert (event.not_beaten(), event.clearly_below()) == ((), ("class_name", "permuted"))


def test_the_mean_is_over_media_modalities_and_shared_anchors() -> None:
    """Text is left out of the mean, and so is an anchor set that one modality lacks."""
    rows = recognition_rows(metrics(*MIXED["recognition"], record("event", "unseen", "templates", 0.5)))
    mean = split_mean(rows, "unseen")
    assert mean is not None
    assert mean.modalities == ("image", "event")
    assert mean.top1 == pytest.approx({"llm_centers": 0.65, "class_name": 0.56, "permuted": 0.15})
    assert (mean.chance, mean.n) == (0.25, 80)
    assert split_mean(rows, "unseen_among_all") is None


def test_text_alone_is_averaged_rather_than_nothing() -> None:
    """Where text is the only modality, the mean is that of text."""
    rows = recognition_rows(metrics(record("text", "seen", "llm_centers", 0.4)))
    mean = split_mean(rows, "seen")
    assert mean is not None
    assert mean.top1 == {"llm_centers": 0.4}


def test_the_verdict_names_every_control_that_is_not_beaten() -> None:
    """Counts, places and interval overlap are said, in that order."""
    assert verdict(recognition_rows(MIXED)) == [
        "LLM centers are ahead of every control in 1 of 4 rows (a row is a modality on a split), "
        "in 1 of these with intervals apart from all of them.",
        "They do not beat class name in 3 of 4 rows, with intervals apart in 1: seen (image); "
        "unseen (image, text).",
    ]


def test_a_clean_win_and_a_comparison_without_controls_are_said_as_such() -> None:
    """No control above the centers is one sentence; no control at all is another."""
    won = metrics(record("image", "seen", "llm_centers", 0.52), record("image", "seen", "templates", 0.50))
    first, second = verdict(recognition_rows(won))
    assert "1 of 1 rows" in first
    assert "nowhere with intervals apart" in first
    assert second == "No control is at or above them anywhere."
    alone = recognition_rows(metrics(record("image", "seen", "llm_centers", 0.5)))
    assert verdict(alone) == ["No row holds both LLM centers and a control: nothing can be compared."]


def test_many_modalities_are_counted_instead_of_listed() -> None:
    """A control that wins in every modality of a split is said to win in all of them."""
    losing = [
        record(modality, "seen", anchors, top1)
        for modality in ("image", "audio", "point")
        for anchors, top1 in (("llm_centers", 0.4), ("random_words", 0.5))
    ]
    assert verdict(recognition_rows(metrics(*losing)))[1].endswith(": seen (all 3).")


def test_the_terminal_table_is_aligned_and_marked() -> None:
    """Every line of numbers ends in the same column, the best has a star, a control above has a mark."""
    lines = result_table(MIXED).splitlines()
    assert lines[0].startswith("aligned heads: top-1 %")
    assert lines[0].endswith("means leave text out")
    numbers = [line for line in lines if line.endswith(("40", "80"))]
    assert len(numbers) == 5  # four rows, one mean
    assert len({len(line) for line in numbers}) == 1
    seen = next(line for line in lines if line.startswith("  image"))
    assert seen.split() == ["image", "30.0", "[25.0-35.0]", "90.0*!", "0.0", "25.0", "40"]
    assert "  mean of 2" in result_table(MIXED)


def test_the_markdown_table_is_a_table() -> None:
    """Every row has as many cells as the header; the best is bold and a control above is marked."""
    text = result_table_markdown(MIXED)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert "| seen | image | 30.0 [25.0–35.0] | **90.0** ▲ | 0.0 | 25.0 | 40 |" in table
    assert "| unseen | *mean of 2* | *65.0* | *56.0* | *15.0* | *25.0* | 80 |" in table
    assert "- They do not beat class name in 3 of 4 rows" in text


def test_zero_shot_rows_and_missing_anchors_have_their_place() -> None:
    """The zero-shot table says that nothing was trained; an anchor set that was not measured is a dash."""
    rows = [
        record("image", "unseen", "llm_centers", 0.5, model="zero_shot"),
        record("image", "unseen", "class_name", 0.4, model="zero_shot"),
        record("audio", "unseen", "class_name", 0.4, model="zero_shot"),
    ]
    text = result_table({"zero_shot": rows}, "zero_shot")
    assert text.startswith("no training")
    audio = next(line for line in text.splitlines() if line.startswith("  audio"))
    assert audio.split() == ["audio", "-", "40.0*", "25.0", "40"]
    assert "| unseen | audio | – | **40.0** | 25.0 | 40 |" in result_table_markdown(
        {"zero_shot": rows}, "zero_shot"
    )


def test_the_largest_number_of_anchors_stands_for_a_set() -> None:
    """An anchor set measured at several k shows its largest."""
    rows = recognition_rows(
        metrics(
            record("image", "seen", "llm_centers", 0.9, k=1),
            record("image", "seen", "llm_centers", 0.4, k=50),
            record("image", "seen", "llm_centers", 0.8, k=10),
        )
    )
    assert [(row.centers.k, row.centers.top1) for row in rows if row.centers] == [(50, 0.4)]


@pytest.mark.parametrize("table", [result_table, result_table_markdown])
def test_no_recognition_is_one_sentence(table: Any) -> None:
    """A run without a labelled sample says so instead of printing an empty table."""
    assert table({}) == "No recognition was measured: the run had no labelled sample to score."
