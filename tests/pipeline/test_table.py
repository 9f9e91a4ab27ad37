"""The result table in the terminal and in Markdown: aligned, marked, and with its verdict."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.table import result_table, result_table_markdown


def test_the_terminal_table_is_aligned_and_marked(mixed: Any) -> None:
    """Every line of numbers ends in the same column, the best has a star, a control above has a mark."""
    lines = result_table(mixed).splitlines()
    assert lines[0].startswith("aligned heads: top-1 %")
    assert lines[0].endswith("means leave text out")
    numbers = [line for line in lines if line.endswith(("40", "80"))]
    assert len(numbers) == 5  # four rows, one mean
    assert len({len(line) for line in numbers}) == 1
    seen = next(line for line in lines if line.startswith("  image"))
    assert seen.split() == ["image", "30.0", "[25.0-35.0]", "90.0*!", "0.0", "25.0", "40"]
    assert "  mean of 2" in result_table(mixed)


def test_the_markdown_table_is_a_table(mixed: Any) -> None:
    """Every row has as many cells as the header; the best is bold and a control above is marked."""
    text = result_table_markdown(mixed)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert "| seen | image | 30.0 [25.0–35.0] | **90.0** ▲ | 0.0 | 25.0 | 40 |" in table
    assert "| unseen | *mean of 2* | *65.0* | *56.0* | *15.0* | *25.0* | 80 |" in table
    assert "- They do not beat class name in 3 of 4 rows" in text


def test_zero_shot_rows_and_missing_anchors_have_their_place(record: Any) -> None:
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


@pytest.mark.parametrize("table", [result_table, result_table_markdown])
def test_centers_that_hold_the_bare_name_say_so(mixed: Any, table: Any) -> None:
    """In the header, the legend and the verdict; without the name, or in older metrics, they are plain."""
    named = table({**mixed, "with_name": True})
    assert named.count("LLM centers") == named.count("LLM centers + name") == 3
    assert "LLM centers + name are ahead of every control in" in named
    for plain in (table({**mixed, "with_name": False}), table(mixed)):
        assert plain.count("LLM centers") == 3
        assert "+ name" not in plain


@pytest.mark.parametrize("table", [result_table, result_table_markdown])
def test_no_recognition_is_one_sentence(table: Any) -> None:
    """A run without a labelled sample says so, and why, instead of printing an empty table."""
    assert table({}) == "No recognition was measured."
    reasons = [
        {"modality": None, "n": 7, "reason": "no category is named"},
        {"modality": "audio", "n": 1, "reason": "none has a category"},
    ]
    text = table({"unmeasured": reasons})
    assert "no category is named" in text
    assert "audio (1 sample): none has a category" in text


@pytest.mark.parametrize("table", [result_table, result_table_markdown])
def test_what_has_no_row_is_told_below_the_rows(table: Any, mixed: dict[str, Any]) -> None:
    """A modality that was not measured is not left out in silence."""
    reason = {"modality": "thermal", "n": 3, "reason": "no head"}
    text = table(mixed | {"unmeasured": [reason]})
    assert "thermal (3 samples): no head" in text.splitlines()[-1]
    assert "thermal" not in table(mixed)
