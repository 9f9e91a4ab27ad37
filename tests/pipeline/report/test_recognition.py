"""The report's recognition: leads and further measures where the metrics have them, nothing where not."""

from __future__ import annotations

from typing import Any

from pipeline.report.recognition import recognition_section


def _lead(lead: float, low: float, high: float, p: float | None) -> dict[str, Any]:
    return {"lead": lead, "lead_low": low, "lead_high": high, "p": p}


def test_leads_are_told_with_interval_and_p(record: Any, parsed: Any) -> None:
    """In points with their sign, bold where the paired interval excludes 0; a missing p is left out."""
    rows = [
        record("image", "seen", "llm_centers", 0.55),
        record("image", "seen", "class_name", 0.50, **_lead(0.05, 0.02, 0.08, 0.00001)),
        record("image", "seen", "templates", 0.60, **_lead(-0.05, -0.1, -0.01, 0.042)),
        record("image", "seen", "permuted", 0.55, **_lead(-0.0001, -0.1, 0.1, None)),
    ]
    markup = recognition_section({"recognition": rows})
    text = parsed(markup).text
    assert "+5.0 +2.0 to +8.0, p < 0.001 −5.0 −10.0 to −1.0, p 0.042 0.0 −10.0 to +10.0" in text
    assert "<b>+5.0</b>" in markup
    assert '<b class="over">−5.0</b>' in markup
    assert "<span>0.0</span>" in markup
    assert "its own interval, resampled over objects" in text
    assert "bold where its lead is significant" in text


def test_old_metrics_have_the_old_words(mixed: Any, parsed: Any) -> None:
    """Without paired leads and further measures there is no table of them; overlap is spoken of."""
    markup = recognition_section(mixed)
    assert "<details>" not in markup
    text = parsed(markup).text
    assert "where intervals do not overlap, the difference is significant" in text
    assert "bold where intervals do not overlap" in text


def test_further_measures_of_the_centers(record: Any, parsed: Any) -> None:
    """Top-1, top-5, mean recall and mAP by split; a null mAP is a dash; controls have none of it."""
    rows = [
        record("image", "seen", "llm_centers", 0.5, mean_recall=0.45, map=None),
        record("audio", "unseen", "llm_centers", 0.25, mean_recall=0.2, map=0.333),
        record("audio", "unseen", "class_name", 0.99, mean_recall=0.99, map=0.99),
    ]
    text = parsed(recognition_section({"recognition": rows})).text
    assert "seen categories image 50.0 70.0 45.0 – unseen categories audio 25.0 45.0 20.0 33.3" in text


def test_centers_that_hold_the_bare_name_say_so(mixed: Any, parsed: Any) -> None:
    """Wherever the page speaks of the LLM centers of such a run, in words, key, table and caption."""
    plain = parsed(recognition_section(mixed)).text
    named = parsed(recognition_section({**mixed, "with_name": True})).text
    assert plain.count("LLM centers") == named.count("LLM centers + name") == named.count("LLM centers") > 4
    assert "+ name" not in plain
