"""The report's heat maps: every ordered pair, and what luck would reach."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from pipeline.report.page import random_recalls
from pipeline.report.retrieval import retrieval_section
from trainer.records import SampleSet

MODALITIES = ("image", "audio", "text")


def test_the_heat_maps_hold_every_ordered_pair(run: Any) -> None:
    """Three modalities make six ordered pairs a level; each cell is that pair's recall@10 in percent."""
    markup = run.target.read_text(encoding="utf-8")
    section = markup[markup.index('id="retrieval"') : markup.index('id="balance"')]
    shown = re.findall(r'<td class="cell[^"]*" style="--v:([\d.]+)">(\d+)</td>', section)
    order = sorted(MODALITIES, key=("image", "text", "audio").index)
    recall = {(r["level"], r["query"], r["gallery"]): r["r10"] for r in run.metrics["retrieval"]}
    wanted = [recall[level, q, g] for level in ("category", "object") for q in order for g in order if q != g]
    assert shown == [(f"{value:.3f}", f"{100 * value:.0f}") for value in wanted]


def test_random_recall_is_the_share_of_lucky_draws() -> None:
    """The closed form equals counting every set of ten that could be drawn from a small gallery."""

    def samples(modality: str, categories: list[int]) -> SampleSet:
        n = len(categories)
        return SampleSet(
            modality=modality,
            sample_ids=tuple(f"{modality}{i}" for i in range(n)),
            splits_N=np.array(["test"] * n),
            category_N=np.array(categories),
            object_N=np.full(n, -1),
            vectors_ND=np.zeros((n, 2), np.float32),
        )

    gallery = [0, 0, *[1] * 5, *[2] * 6]
    chances = random_recalls({"image": samples("image", [0, 1, 3]), "audio": samples("audio", gallery)})
    draws = list(combinations(gallery, 10))
    lucky = [sum(label in draw for draw in draws) / len(draws) for label in (0, 1)]
    assert chances["category", "image", "audio"] == pytest.approx(sum(lucky) / 2)
    assert "object" not in {level for level, _, _ in chances}


def _pair(query: str, gallery: str, level: str, **other: Any) -> dict[str, Any]:
    row = {"query": query, "gallery": gallery, "level": level, "n": 7}
    row |= {f"r{k}": 0.25 for k in (1, 5, 10, 20)}
    return {**row, **other}


def test_median_ranks_are_told_where_they_were_measured(parsed: Any) -> None:
    """Each pair's own, and their mean; a pair without one is a dash, and then there is no mean."""
    pairs = [
        _pair("audio", "image", "object", median_rank=4.5, r1_low=0.2, r1_high=0.3),
        _pair("image", "audio", "object", median_rank=2.0),
    ]
    text = parsed(retrieval_section({"retrieval": pairs}, {})).text
    assert "same object 25 25 25 25 3.2" in text
    assert "image → audio 25.0 25.0 25.0 25.0 2 7" in text
    assert "audio → image 25.0 20.0–30.0 25.0 25.0 25.0 4.5 7" in text
    some = [pairs[0], _pair("image", "audio", "object", median_rank=None)]
    text = parsed(retrieval_section({"retrieval": some}, {})).text
    assert "same object 25 25 25 25 Every" in text
    assert "image → audio 25.0 25.0 25.0 25.0 – 7" in text


def test_without_median_ranks_nothing_speaks_of_them(run: Any, page: Any) -> None:
    """Metrics of older runs have the pairs without that column."""
    pairs = [{k: v for k, v in row.items() if k != "median_rank"} for row in run.metrics["retrieval"]]
    assert "median rank" not in retrieval_section({"retrieval": pairs}, {}).lower()
