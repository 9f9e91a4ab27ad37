"""The comparison: what is said of LLM centers and their controls, how surely, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.accuracies import anchor_names, recognition_rows, split_mean, verdict


def _metrics(*records: dict[str, Any]) -> dict[str, Any]:
    return {"recognition": list(records)}


def test_rows_come_by_split_and_modality_with_their_controls_in_order(mixed: Any) -> None:
    """Records in any order make rows in one order: seen before unseen, image before event."""
    rows = recognition_rows(mixed)
    assert [(row.split, row.modality) for row in rows] == [
        ("seen", "image"),
        ("unseen", "image"),
        ("unseen", "text"),
        ("unseen", "event"),
    ]
    assert all(list(row.controls) == ["class_name", "permuted"] for row in rows)
    assert anchor_names(rows) == ["llm_centers", "class_name", "permuted"]


def test_a_row_knows_what_it_does_not_beat_and_how_surely(mixed: Any) -> None:
    """Above, level and below are told apart, and so are overlapping and separate intervals."""
    seen, image, text, event = recognition_rows(mixed)
    assert (seen.not_beaten(), seen.clearly_above()) == (("class_name",), ("class_name",))
    assert (image.not_beaten(), image.clearly_above()) == (("class_name",), ())
    assert text.not_beaten() == ("class_name",), "a tie is not a win"
    assert text.best() == ("llm_centers", "class_name")
    assert (event.not_beaten(), event.clearly_below()) == ((), ("class_name", "permuted"))


def test_the_mean_is_over_media_modalities_and_shared_anchors(mixed: Any, record: Any) -> None:
    """Text is left out of the mean, and so is an anchor set that one modality lacks."""
    rows = recognition_rows(_metrics(*mixed["recognition"], record("event", "unseen", "templates", 0.5)))
    mean = split_mean(rows, "unseen")
    assert mean is not None
    assert mean.modalities == ("image", "event")
    assert mean.top1 == pytest.approx({"llm_centers": 0.65, "class_name": 0.56, "permuted": 0.15})
    assert (mean.chance, mean.n) == (0.25, 80)
    assert split_mean(rows, "unseen_among_all") is None


def test_text_alone_is_averaged_rather_than_nothing(record: Any) -> None:
    """Where text is the only modality, the mean is that of text."""
    rows = recognition_rows(_metrics(record("text", "seen", "llm_centers", 0.4)))
    mean = split_mean(rows, "seen")
    assert mean is not None
    assert mean.top1 == {"llm_centers": 0.4}


def test_the_verdict_names_every_control_that_is_not_beaten(mixed: Any) -> None:
    """Counts, places and interval overlap are said, in that order."""
    assert verdict(recognition_rows(mixed)) == [
        "LLM centers are ahead of every control in 1 of 4 rows (a row is a modality on a split), "
        "in 1 of these with intervals that do not overlap.",
        "They do not beat class name in 3 of 4 rows; in 1 of them the intervals do not overlap: "
        "seen (image); unseen (image, text).",
    ]


def test_a_clean_win_and_a_comparison_without_controls_are_said_as_such(record: Any) -> None:
    """No control above the centers is one sentence; no control at all is another."""
    won = _metrics(record("image", "seen", "llm_centers", 0.52), record("image", "seen", "templates", 0.50))
    first, second = verdict(recognition_rows(won))
    assert "1 of 1 rows" in first
    assert "in all of these with overlapping intervals" in first
    assert second == "No control is at or above them anywhere."
    alone = recognition_rows(_metrics(record("image", "seen", "llm_centers", 0.5)))
    assert verdict(alone) == ["No row has both LLM centers and a control, so nothing can be compared."]


def test_many_modalities_are_counted_instead_of_listed(record: Any) -> None:
    """A control that wins in every modality of a split is said to win in all of them."""
    losing = [
        record(modality, "seen", anchors, top1)
        for modality in ("image", "audio", "point")
        for anchors, top1 in (("llm_centers", 0.4), ("random_words", 0.5))
    ]
    assert verdict(recognition_rows(_metrics(*losing)))[1].endswith(": seen (all 3).")


def test_the_largest_number_of_anchors_stands_for_a_set(record: Any) -> None:
    """An anchor set measured at several k shows its largest."""
    rows = recognition_rows(
        _metrics(
            record("image", "seen", "llm_centers", 0.9, k=1),
            record("image", "seen", "llm_centers", 0.4, k=50),
            record("image", "seen", "llm_centers", 0.8, k=10),
        )
    )
    assert [(row.centers.k, row.centers.top1) for row in rows if row.centers] == [(50, 0.4)]


def _paired(lead: float, low: float, high: float, p: float | None = 0.5) -> dict[str, Any]:
    return {"lead": lead, "lead_low": low, "lead_high": high, "p": p}


def test_a_paired_interval_decides_where_there_is_one(record: Any) -> None:
    """A lead is sure where its paired interval excludes 0, whatever the accuracies' own intervals do."""
    rows = recognition_rows(
        _metrics(
            record("image", "seen", "llm_centers", 0.55),
            record("image", "seen", "class_name", 0.52, **_paired(0.03, 0.01, 0.05)),
            record("image", "seen", "templates", 0.57, **_paired(-0.02, -0.04, -0.001)),
            record("image", "seen", "permuted", 0.10, **_paired(0.45, -0.01, 0.9)),
        )
    )
    assert rows[0].paired()
    assert rows[0].clearly_below() == ("class_name",)
    assert rows[0].clearly_above() == ("templates",)
    assert rows[0].not_beaten() == ("templates",)


def test_the_verdict_says_that_it_is_paired(record: Any) -> None:
    """With paired intervals in every row the sentences speak of them, and never of overlap."""
    rows = [
        record("image", "seen", "llm_centers", 0.55),
        record("image", "seen", "class_name", 0.52, **_paired(0.03, 0.01, 0.05)),
        record("audio", "seen", "llm_centers", 0.55),
        record("audio", "seen", "class_name", 0.57, **_paired(-0.02, -0.04, 0.01)),
        record("event", "seen", "llm_centers", 0.55),
        record("event", "seen", "class_name", 0.67, **_paired(-0.12, -0.2, -0.04)),
    ]
    assert verdict(recognition_rows(_metrics(*rows))) == [
        "LLM centers are ahead of every control in 1 of 3 rows (a row is a modality on a split), "
        "significantly in 1 of these: the paired 95% intervals of all leads exclude 0.",
        "They do not beat class name in 2 of 3 rows; the control is significantly ahead in 1 "
        "of them (the paired interval excludes 0): seen (audio, event).",
    ]
    assert (
        "the control is significantly ahead in none of them (every paired interval includes 0): seen (audio)."
        in (verdict(recognition_rows(_metrics(*rows[:4])))[1])
    )
    one_unpaired = [*rows, record("event", "seen", "templates", 0.5)]
    assert "with intervals that do not overlap" in verdict(recognition_rows(_metrics(*one_unpaired)))[0]


def test_a_lead_that_is_null_is_none(record: Any) -> None:
    """Null in the metrics, for what could not be compared, is no lead of 0."""
    null = {"lead": None, "lead_low": None, "lead_high": None, "p": None}
    row = record("image", "seen", "class_name", 0.5, **null)
    rows = recognition_rows(_metrics(record("image", "seen", "llm_centers", 0.9), row))
    assert rows[0].controls["class_name"].lead is None
    assert rows[0].clearly_below() == ("class_name",), "judged by overlap"
