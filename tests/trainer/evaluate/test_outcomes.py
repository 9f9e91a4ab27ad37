"""The tables of single answers: explicit schemas, whole files, the ids of the knowledge base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from trainer.evaluate.outcomes import (
    NAMED,
    RANKS,
    RecognitionOutcomes,
    RetrievalOutcomes,
    named_table,
    ranks_table,
    write_outcomes,
)
from trainer.inputs import load_samples, open_kb


def test_rows_hold_the_ids_of_the_knowledge_base(planted_kb: Path, tmp_path: Path) -> None:
    """Numbers become ids; what was named nothing, and what has no object, is null."""
    base = open_kb(planted_kb)
    samples = load_samples(base, "samples")[0]["audio"].take(np.arange(3))
    samples.object_N[1] = -1
    hits = np.array([True, False, False])
    outcome = RecognitionOutcomes("seen", "llm_centers", samples, np.array([0, 5, -1]), hits, ~hits)
    named = named_table(base, [outcome, outcome], model="aligned")
    ranks = ranks_table(
        base, [RetrievalOutcomes("audio", "image", "object", samples, np.array([1, 30, 2]))], model="aligned"
    )
    write_outcomes(tmp_path, named, ranks)
    rows = pq.read_table(tmp_path / "named.parquet").to_pylist()
    assert len(rows) == 6
    assert rows[0] == {
        "model": "aligned",
        "split": "seen",
        "anchors": "llm_centers",
        "modality": "audio",
        "sample_id": "m0-s0-00-audio",
        "object_id": "m0-s0-00",
        "category_id": "m0-s0",
        "named": "m0-s0",
        "hit": True,
        "hit5": False,
    }
    assert (rows[1]["object_id"], rows[1]["named"], rows[2]["named"]) == (None, base.categories[5], None)
    ranked = pq.read_table(tmp_path / "ranks.parquet")
    assert ranked["rank"].to_pylist() == [1, 30, 2]
    assert ranked["object_id"].to_pylist() == ["m0-s0-00", None, "m0-s0-02"]
    for file, schema in (("named", NAMED), ("ranks", RANKS)):
        assert pq.read_schema(tmp_path / f"{file}.parquet").equals(schema, check_metadata=True)


def test_nothing_named_is_an_empty_table(planted_kb: Path) -> None:
    """Columns and types stay."""
    base = open_kb(planted_kb)
    assert named_table(base, [], model="aligned").schema.equals(NAMED)
    assert ranks_table(base, [], model="aligned").schema.equals(RANKS)
