"""What descriptions gain without the name, in words: the first screen's sentence, the table, the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.description_gain import gain_sentence, gains, main_gain
from pipeline.report.answer import RunData, first_screen
from pipeline.report.descriptions import description_section
from pipeline.table import result_table, result_table_markdown

ASKED = RunData(samples=9, modalities=2, categories=3, untrained=1)


def _row(split: str, modality: str | None, gain: float, half: float = 0.05, **other: Any) -> dict[str, Any]:
    row = {
        "model": "aligned",
        "split": split,
        "modality": modality,
        "class_name": 0.4,
        "name_free": 0.4 + gain,
    }
    interval = {"gain": gain, "gain_low": gain - half, "gain_high": gain + half, "p": 0.0004, "n": 1234}
    left = {"texts_mean": 15.25, "texts_least": 0, "texts_most": 16, "without_texts": 2}
    return {**row, **interval, **left, **other}


ROWS = [
    _row("seen", "image", 0.02),
    _row("unseen", "audio", 0.12),
    _row("unseen", "image", -0.06),
    _row("unseen", None, 0.03),
    _row("unseen", None, 0.5, model="zero_shot"),
]


def test_the_rows_are_ordered_and_the_mean_leads(mixed: Any) -> None:
    """By model, split and modality; the run leads with its own mean on unseen categories."""
    metrics = {**mixed, "name_free": ROWS}
    assert [(row.model, row.split, row.modality) for row in gains(metrics)] == [
        ("aligned", "seen", "image"),
        ("aligned", "unseen", None),
        ("aligned", "unseen", "image"),
        ("aligned", "unseen", "audio"),
        ("zero_shot", "unseen", None),
    ]
    found = main_gain(metrics)
    assert found is not None
    assert (found.model, found.modality, found.gain) == ("aligned", None, 0.03)
    only_seen = main_gain({**mixed, "name_free": ROWS[:1]})
    assert only_seen is not None
    assert (only_seen.split, only_seen.modality) == ("seen", "image")


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (
            0.12,
            "+12.0 points (+7.0 to +17.0; unseen categories, mean over modalities): the descriptions help.",
        ),
        (
            0.03,
            "+3.0 points (−2.0 to +8.0; unseen categories, mean over modalities): a difference that may be",
        ),
        (
            -0.12,
            "−12.0 points (−17.0 to −7.0; unseen categories, mean over modalities): the descriptions do",
        ),
    ],
)
def test_the_sentence_says_whether_the_words_helped(mixed: Any, parsed: Any, gain: float, words: str) -> None:
    """With both accuracies, the interval and how many texts were left; in report, terminal and Markdown."""
    metrics = {**mixed, "name_free": [_row("unseen", None, gain)]}
    for text in (
        gain_sentence(metrics) or "",
        parsed(first_screen(metrics, ASKED)).text,
        result_table(metrics),
        result_table_markdown(metrics),
    ):
        assert words in text
        assert f"{40 + 100 * gain:.1f}% where the bare name gives 40.0%" in text
        assert "taken out of the 15.2 texts per category (none in 2)" in text


def test_the_section_has_every_row(mixed: Any, parsed: Any) -> None:
    """A block per model and split, the gain bold where its interval excludes 0."""
    markup = description_section({**mixed, "name_free": ROWS})
    text = parsed(markup).text
    assert "15.2 per category on average, 0 in the category with the fewest (2 categories have none)" in text
    assert (
        "aligned heads: seen categories image 40.0 42.0 +2.0 −3.0 to +7.0 < 0.001 1,234 may be chance" in text
    )
    assert "aligned heads: unseen categories mean 40.0 43.0 +3.0" in text
    assert "audio 40.0 52.0 +12.0 +7.0 to +17.0 < 0.001 1,234 helps" in text
    assert "zero-shot: unseen categories mean 40.0 90.0 +50.0" in text
    assert markup.count("<b>") == 3


def test_nothing_is_said_where_nothing_was_measured(mixed: Any) -> None:
    """Metrics of an older version have no such rows."""
    assert description_section(mixed) == ""
    assert gain_sentence(mixed) is None
    assert "By description alone" not in result_table(mixed)
    assert "By description alone" not in first_screen(mixed, ASKED)


def test_the_set_is_no_control_to_beat(mixed: Any, record: Any) -> None:
    """The verdict is on the centers and their controls; name-free texts are compared with the name."""
    more = {"recognition": [*mixed["recognition"], record("image", "seen", "name_free", 0.99)]}
    assert result_table(more) == result_table(mixed)
