"""kb_builder.describe.samples: shards of texts about real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from data.errors import KnowledgeBaseError
from data.manifest.read import Manifest
from data.sample import Sample
from kb_builder.describe import measuring
from kb_builder.describe.samples import describe_sample_shards, sample_shard_count
from kb_builder.encoders.tokens import MINILM, TOKEN_LIMIT
from kb_builder.facts.sentence import FACTS_VERSION
from kb_builder.settings import DescribeSamples
from kb_builder.tables.ingest import ingest
from kb_builder.tables.schemas import read_rows
from tests.elsewhere import Elsewhere, all_files

NOTHING_ASKED = {"requests": 0, "answered_from_ledger": 0, "spent_usd": 0.0, "saved_usd": 0.0}


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    """A knowledge base of two equal pictures, a sound, a text, a given description, and a torn picture."""
    red = np.full((8, 8, 3), (205, 35, 40), dtype=np.uint8)
    for name in ("a", "b", "given"):
        Image.fromarray(red).save(tmp_path / f"{name}.png")
    soundfile.write(tmp_path / "c.wav", np.sin(np.arange(8000) / 3) * 0.1, 8000)
    (tmp_path / "d.txt").write_text("A steel\nball.", encoding="utf-8")
    (tmp_path / "torn.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    samples = (
        Sample("a", "image", "a.png"),
        Sample("b", "image", "b.png"),
        Sample("c", "audio", "c.wav"),
        Sample("d", "text", "d.txt"),
        Sample("given", "image", "given.png", description="a red square"),
        Sample("torn", "image", "torn.png"),
    )
    ingest(Manifest(tmp_path, samples, ()), tmp_path / "kb")
    return tmp_path / "kb"


def describe(kb: Path, settings: DescribeSamples, shard: int = 0) -> dict[str, object]:
    return describe_sample_shards(kb, kb.parent, [shard], settings, run_id="test", encoder=MINILM)[shard]


def test_facts_for_all_but_what_was_given(kb: Path) -> None:
    """Each readable sample has one `ok` text of honest origin; the torn one is rejected by name."""
    assert describe(kb, DescribeSamples()) == NOTHING_ASKED | {
        "samples": 6,
        "ok": 5,
        "given": 1,
        "without_text": 1,
        "rejected": {"unreadable": 1},
    }
    rows = {row["sample_id"]: row for row in read_rows(kb / "descriptions" / "sample")}
    assert list(rows) == ["a", "b", "c", "d", "given"]
    assert rows["a"]["text"] == rows["b"]["text"]
    assert rows["a"]["text"].startswith("A picture of a plain surface in red, smooth;")
    assert rows["a"]["row_id"] != rows["b"]["row_id"]
    assert rows["c"]["text"].startswith("A steady sound of 1.0 seconds")
    assert rows["d"]["text"] == "A steel ball."
    for name in "abcd":
        row = rows[name]
        assert (row["status"], row["source"], row["provider"]) == ("ok", "facts", "unibind")
        assert row["model_resolved"] == f"facts-{FACTS_VERSION}"
    given = rows["given"]
    assert (given["text"], given["source"], given["provider"]) == ("a red square", "manifest", "manifest")
    (reject,) = read_rows(kb / "rejects" / "describe-00000.parquet")
    assert (reject["sample_id"], reject["stage"]) == ("torn", "describe")
    assert "torn.png" in reject["reason"]


def test_shards_are_the_whole_and_repeat_to_the_bit(kb: Path) -> None:
    """Shards of two samples hold together what one shard holds; running one again gives the same bytes."""
    describe(kb, DescribeSamples())
    whole = read_rows(kb / "descriptions" / "sample")
    settings = DescribeSamples(shard_samples=2)
    assert sample_shard_count(kb, settings) == 3
    for shard in range(3):
        describe(kb, settings, shard)
    assert read_rows(kb / "descriptions" / "sample") == whole
    first = (kb / "descriptions" / "sample" / "part-00001.parquet").read_bytes()
    describe(kb, settings, 1)
    assert (kb / "descriptions" / "sample" / "part-00001.parquet").read_bytes() == first


def test_parts_of_a_finer_division_are_removed(kb: Path) -> None:
    """A larger shard size leaves no part behind whose rows a glob would read twice."""
    for shard in range(6):
        describe(kb, DescribeSamples(shard_samples=1), shard)
    describe(kb, DescribeSamples(shard_samples=6))
    assert len(read_rows(kb / "descriptions" / "sample")) == 5
    assert sorted(path.name for path in (kb / "rejects").iterdir()) == [
        "describe-00000.parquet",
        "ingest.parquet",
    ]


def test_fake_and_none(kb: Path) -> None:
    """`fake` reads no file but texts; `none` leaves what was given, and an empty table has its columns."""
    assert describe(kb, DescribeSamples(describer="fake")) == NOTHING_ASKED | {
        "samples": 6,
        "requests": 4,
        "ok": 6,
        "given": 1,
        "without_text": 0,
        "rejected": {},
        "spent_usd": None,
    }
    rows = read_rows(kb / "descriptions" / "sample")
    assert [row["source"] for row in rows] == ["fake", "fake", "fake", "facts", "manifest", "fake"]
    assert describe(kb, DescribeSamples(describer="none"))["ok"] == 1
    assert describe(kb, DescribeSamples(describer="none", shard_samples=1), 0)["ok"] == 0
    assert read_rows(kb / "descriptions" / "sample" / "part-00000.parquet") == []


def test_a_given_text_that_is_too_long_stays_and_is_measured_beside(tmp_path: Path) -> None:
    """Nothing is cut: the long text stays as `too_long`, and the sample has its facts."""
    (tmp_path / "d.txt").write_text("short", encoding="utf-8")
    sample = Sample("d", "text", "d.txt", description="word " * (TOKEN_LIMIT + 1))
    ingest(Manifest(tmp_path, (sample,), ()), tmp_path / "kb")
    assert describe(tmp_path / "kb", DescribeSamples()) == NOTHING_ASKED | {
        "samples": 1,
        "ok": 1,
        "given": 1,
        "without_text": 0,
        "rejected": {"too_long": 1},
    }
    rows = read_rows(tmp_path / "kb" / "descriptions" / "sample")
    assert [(row["source"], row["status"]) for row in rows] == [("facts", "ok"), ("manifest", "too_long")]


def test_a_text_sample_longer_than_the_encoder_reads(tmp_path: Path) -> None:
    """A long text sample is kept whole and marked, never cut."""
    (tmp_path / "d.txt").write_text("word " * 400, encoding="utf-8")
    ingest(Manifest(tmp_path, (Sample("d", "text", "d.txt"),), ()), tmp_path / "kb")
    assert describe(tmp_path / "kb", DescribeSamples())["rejected"] == {"too_long": 1}
    (row,) = read_rows(tmp_path / "kb" / "descriptions" / "sample")
    assert row["n_chars"] == 1999


def test_a_file_that_vanished_after_ingest_is_rejected(kb: Path) -> None:
    """A file removed, or changed into a link that leads out, between two stages does not stop the run."""
    (kb.parent / "a.png").unlink()
    (kb.parent / "b.png").unlink()
    (kb.parent / "b.png").symlink_to("/etc/hostname")
    assert describe(kb, DescribeSamples())["rejected"] == {"unreadable": 3}


def test_wrong_calls(kb: Path, tmp_path: Path) -> None:
    """A shard that is not there is our bug; a knowledge base without samples is told with its remedy."""
    with pytest.raises(ValueError, match="no shard 1: 6 subjects make 1 shards"):
        describe(kb, DescribeSamples(), 1)
    with pytest.raises(KnowledgeBaseError, match="unibind run"):
        sample_shard_count(tmp_path / "none", DescribeSamples())


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_facts_measured_elsewhere_give_the_same_bytes(
    kb: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    """In any order: parts and rejects; a worker that does not see the samples is an error."""
    describe(kb, DescribeSamples())
    here = all_files(kb)
    for part in (*kb.glob("descriptions/sample/*"), *kb.glob("rejects/describe-*")):
        part.unlink()
    monkeypatch.setattr(measuring, "AT_A_TIME", at_a_time)
    engine = Elsewhere(seed=at_a_time)

    def elsewhere(root: Path) -> None:
        describe_sample_shards(
            kb, root, [0], DescribeSamples(), run_id="test", encoder=MINILM, carry=engine.map
        )

    elsewhere(kb.parent)
    assert all_files(kb) == here
    assert sum(len(order.samples) for order in engine.orders) == 5  # one text was given
    with pytest.raises(KnowledgeBaseError, match="under the same path"):
        elsewhere(kb.parent / "gone")
