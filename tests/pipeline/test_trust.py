"""What to trust, in words: the lines for the terminal and the records behind them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.trust import Repeated, repeated, stacked, stacked_mean, trust_text, trusted


def _trust(modality: str, chosen: str, *, toss_up: bool = False, **top1: float) -> list[dict[str, Any]]:
    return [
        {
            "modality": modality,
            "split": split,
            "model": model,
            "chosen": model == chosen,
            "toss_up": toss_up,
            "reason": None if len(top1) > 1 else "there is no zero-shot encoder",
            "top1": share,
            "top1_low": share - 0.1,
            "top1_high": share + 0.1,
            "n": 30,
        }
        for split in ("val", "seen", "unseen_among_all")
        for model, share in top1.items()
    ]


def _stacking(modality: str, model: str, **shares: float | None) -> dict[str, Any]:
    return {
        "modality": modality,
        "model": model,
        "constant": 0.125,
        "harmonic": None if shares["seen"] is None else 0.5,
        "harmonic_stacked_low": 0.4,
        "harmonic_stacked_high": 0.6,
        **shares,
    }


def _repeats(modality: str | None, method: str, top1: float, lead: float | None = None) -> dict[str, Any]:
    row = {
        "modality": modality,
        "shots": None,
        "method": method,
        "top1": top1,
        "top1_low": top1 - 0.05,
        "top1_high": top1 + 0.05,
        "n_splits": 5,
    }
    return row if lead is None else row | {"lead": lead, "lead_low": lead - 0.02, "lead_high": lead + 0.02}


def _metrics() -> dict[str, Any]:
    both = {"zero_shot": 0.25, "aligned": 0.75, "mean": 0.5}
    shares = {"seen": 0.8, "unseen": 0.2, "seen_stacked": 0.6, "unseen_stacked": 0.4}
    other = {"seen": 0.6, "unseen": 0.0, "seen_stacked": 0.4, "unseen_stacked": 0.4}
    return {
        "trust": [
            *_trust("audio", "aligned", aligned=0.5),
            *_trust("image", "aligned", **both),
            *_trust("video", "mean", toss_up=True, **both),
        ],
        "stacking": [
            _stacking("audio", "aligned", **other),
            _stacking("image", "aligned", **shares),
            _stacking("image", "zero_shot", **other),
            _stacking("video", "aligned", **other),
            _stacking("video", "mean", seen=None, unseen=None, seen_stacked=None, unseen_stacked=None),
        ],
        "repeats": [
            _repeats("image", "heads", 0.7),
            _repeats("image", "linear_probe", 0.65, 0.05),
            _repeats(None, "heads", 0.6),
            _repeats(None, "linear_probe", 0.61, -0.01),
        ],
    }


def test_the_terminal_says_what_training_changed_and_why_what_is_used() -> None:
    """Models side by side with a star at the one in use, and a sentence for each choice."""
    lines = trust_text(_metrics())
    text = "\n".join(lines)
    rows = [line.split() for line in lines]
    assert ["seen", "categories", "25.0", "75.0*", "50.0", "30"] in rows  # image
    assert ["seen", "categories", "25.0", "75.0", "50.0*", "30"] in rows  # video
    assert (
        "image: heads, chosen on 30 val samples (zero-shot 25.0%, heads 75.0%, mean of both 50.0%)." in text
    )
    assert (
        "video: mean of both; on 30 val samples training is a toss-up (zero-shot 25.0%, heads 75.0%)." in text
    )
    assert "audio: heads only; there is no zero-shot encoder." in text
    assert "unseen samples" not in text  # in the result table already
    assert all(line == line.rstrip() for line in lines)


def test_rivals_are_those_of_the_model_in_use_with_the_mean_of_accuracies() -> None:
    """What has no test samples of both kinds is left out; H of the mean is that of the mean accuracies."""
    rows = stacked(_metrics())
    assert [(row.modality, row.model) for row in rows] == [("image", "aligned"), ("audio", "aligned")]
    mean = stacked_mean(rows)
    assert mean is not None
    assert (mean.modality, mean.constant) == ("mean of 2", None)
    assert (mean.seen, mean.unseen) == pytest.approx((0.7, 0.1))
    assert mean.harmonic == pytest.approx(2 * 0.7 * 0.1 / 0.8)
    assert mean.harmonic_stacked == pytest.approx(2 * 0.5 * 0.4 / 0.9)
    assert [row.model for row in stacked(_metrics(), "zero-shot")] == ["zero_shot", "aligned"]
    lines = [line.split() for line in trust_text(_metrics())]
    assert ["image", "0.125", "80.0", "20.0", "32.0", "60.0", "40.0", "48.0", "[40.0-60.0]"] in lines
    assert ["mean", "of", "2", "70.0", "10.0", "17.5", "50.0", "40.0", "44.4"] in lines
    assert stacked_mean([]) is None


@pytest.mark.parametrize(
    ("lead", "words"),
    [
        (
            0.05,
            "Over 5 splits, heads are 5.0 points ahead of logistic regression [+3.0 to +7.0], for certain",
        ),
        (
            -0.01,
            "Over 5 splits, heads are 1.0 points behind logistic regression [−3.0 to +1.0], which may be",
        ),
    ],
)
def test_heads_against_logistic_regression(lead: float, words: str) -> None:
    """Ahead or behind, and whether the interval allows for chance."""
    rows = [_repeats("image", "heads", 0.7), _repeats("image", "linear_probe", 0.65, lead)]
    (found,) = repeated({"repeats": rows})
    assert found.to_text().startswith(words)
    assert found.to_text().endswith("(image).")


def test_repeated_splits_come_by_modality_with_the_mean_last() -> None:
    """The sentence below the table is of the mean."""
    rows = repeated(_metrics())
    assert [row.modality for row in rows] == ["image", "mean of 1"]
    assert trust_text(_metrics())[-1].startswith("Over 5 splits, heads are 1.0 points behind")
    assert Repeated("image", None, 1, {}).to_text() == ""


def test_a_run_without_heads_says_nothing() -> None:
    """No lines, and no records."""
    assert trust_text({}) == []
    assert (trusted({}), stacked({}), repeated({})) == ([], [], [])
