"""Added texts from file to rows: judged, derived again, never mixed up with what a model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.errors import DamagedError, InputError, KnowledgeBaseError
from data.files import hash_json
from kb_builder.added.sources import read_sources, remove_source, seal_sources
from kb_builder.ask.ledger import read_ledger
from kb_builder.describe.add_texts import Added, add_texts, list_added
from kb_builder.describe.added import describe_added
from kb_builder.describe.categories import describe_category_shards
from kb_builder.describe.contrasts import describe_contrasts
from kb_builder.describe.dry_run import forecast
from kb_builder.encoders.tokens import MINILM
from kb_builder.settings import DescribeCategories, DescribeSamples
from kb_builder.tables.parts import read_manifest
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.explain import explain
from kb_builder.verify.verify import verify
from tests.planted import write_categories

NAMES = {"dog": "dog", "bell": "church bell", "sphere": "wooden sphere"}
FAKE = DescribeCategories(describer="fake", n=4, near_cosine=None, contrast_pairs=0)
CUPL = {
    "Dog": [
        "A dog wags its long tail.",
        "The dog wags its long tails.",
        "A dog has a wet black nose.",
        "It barks at strangers.",
        "Un chien est un animal domestique avec dog et de grandes oreilles.",
    ],
    "church_bell": ["A church bell hangs in a stone tower."],
    "zebra": ["A zebra has black stripes."],
}


def described(kb: Path, settings: DescribeCategories = FAKE) -> dict[str, bytes]:
    """Run what the two stages about categories do; the bytes of every part."""
    describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    describe_contrasts(kb, settings, run_id="r", encoder=MINILM)
    describe_added(kb, settings, run_id="r", encoder=MINILM)
    return {path.name: path.read_bytes() for path in sorted((kb / "descriptions/category").glob("*.parquet"))}


def added_to(
    kb: Path, content: Any, name: str = "cupl.json", settings: DescribeCategories = FAKE, **options: Any
) -> Added:
    path = kb.parent / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return add_texts(kb, path, settings, encoder=MINILM, **options)


def rows_of(kb: Path, source: str = "added") -> list[dict[str, Any]]:
    return [row for row in read_rows(kb / "descriptions" / "category") if row["source"] == source]


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    write_categories(tmp_path / "kb", NAMES)
    return tmp_path / "kb"


def test_texts_become_rows(kb: Path) -> None:
    """Judged by the gates of the category; every row says where it comes from, and costs nothing."""
    before = described(kb)
    done = added_to(kb, CUPL, licence="mit")
    assert dict(done.matched.category_of) == {"Dog": "dog", "church_bell": "bell"}
    assert done.matched.unknown == ("zebra",)
    assert done.without == ("wooden sphere",)
    assert done.statuses == {"ok": 3, "dup_near": 1, "no_name": 1, "wrong_language": 1}
    after = described(kb)
    assert {name: after[name] for name in before} == before
    rows = rows_of(kb)
    assert [(row["category_id"], row["status"]) for row in rows] == [
        ("bell", "ok"),
        ("dog", "ok"),
        ("dog", "dup_near"),
        ("dog", "ok"),
        ("dog", "no_name"),
        ("dog", "wrong_language"),
    ]
    assert rows[2]["dup_of"] == rows[1]["row_id"]
    sha256 = read_sources(kb)[0].content.sha256
    assert rows[0]["request_key"] == hash_json(["added", sha256, "church_bell", CUPL["church_bell"][0]])
    names = ("provider", "template_id", "model_resolved", "cost_usd", "attempts", "aspect", "run_id")
    assert {tuple(row[name] for name in names) for row in rows} == {
        ("cupl", "added/cupl", "unknown", 0.0, 0, None, "r")
    }
    assert verify(kb, deep=True).clean, str(verify(kb, deep=True))
    page = str(explain(kb, rows[0]["row_id"]))
    assert all(word in page for word in ("cupl.json", "mit", sha256, "church_bell", "no model was asked"))


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("<p>A dog wags its tail.</p>", "<p>"),
        ("A dog&amp;quot; wags its tail.", "amp;"),
        ("1. A dog wags its long tail.", "1."),
        ("- A dog wags its long tail.", "-"),
        ("A dog wags its [color] tail.", "[color]"),
        ('["A dog wags its tail.", "A dog barks."]', '["A'),
    ],
)
def test_texts_with_marks_are_no_descriptions(text: str, mark: str, kb: Path) -> None:
    """What is cleaned off answers is rejected in a file: a text that is `ok` is a description alone."""
    assert added_to(kb, {"dog": [text, "A dog has 2 ears & 4 legs."]}).statuses == {"ok": 1, "unparsed": 1}
    described(kb)
    rejected, kept = sorted(rows_of(kb), key=lambda row: str(row["status"]), reverse=True)
    assert (rejected["text"], kept["status"]) == (text, "ok")
    assert rejected["reason"] == f"holds {mark!r}, which is no part of a text"


def test_what_the_command_reports(kb: Path) -> None:
    """Counts of classes, categories and texts, and the mode; the texts of the same file are there already."""
    many = CUPL | {f"animal {number}": [f"An animal {number}."] for number in range(7)}
    said = str(added_to(kb, many))
    assert "cupl.json (cupl): 14 texts about 10 classes" in said
    assert "2 of 10 classes are categories of this project" in said
    assert "1 classes fit with underscores and hyphens read as spaces: church_bell" in said
    assert "8 classes are unknown" in said
    assert ": zebra, animal 0, animal 1, animal 2, animal 3 ..." in said
    assert "1 categories get no text from it: wooden sphere" in said
    assert "3 texts pass the gates, 3 do not (dup_near 1, no_name 1, wrong_language 1)" in said
    assert "licence: not stated" in said
    assert "beside the describer's texts" in said
    source = kb / "added" / "cupl.parquet"
    before = source.read_bytes()
    again = added_to(kb, many, name="copy.json")
    assert not again.new
    assert "nothing changes: these texts were added before as cupl" in str(again)
    assert source.read_bytes() == before
    assert [path.name for path in (kb / "added").iterdir()] == ["cupl.parquet"]
    listed = list_added(kb)
    assert "cupl: 14 texts about 10 classes" in listed
    assert "file: cupl.json" in listed


def test_a_text_of_the_model_stays(kb: Path) -> None:
    """An added text that repeats one of the model's is the duplicate; nothing is asked again."""
    described(kb)
    mine = rows_of(kb, "fake")[0]
    name = NAMES[mine["category_id"]]
    with read_ledger(kb) as ledger:
        assert ledger is not None
        asked = ledger.read(lambda entries: entries.execute("SELECT count(*) FROM entries").fetchone())
    added_to(kb, {name: [mine["text"].upper()]})
    described(kb)
    (row,) = rows_of(kb)
    assert (row["status"], row["dup_of"]) == ("dup_exact", mine["row_id"])
    with read_ledger(kb) as ledger:
        assert ledger is not None
        now = ledger.read(lambda entries: entries.execute("SELECT count(*) FROM entries").fetchone())
    assert now == asked


def test_two_sources(kb: Path) -> None:
    """They are judged in the order of their names, whichever was added first."""
    added_to(kb, {"dog": ["A dog wags its tail."]}, name="b.json")
    added_to(kb, "class,text\ndog,A dog wags its tail.\ndog,A dog digs holes.\n", name="a.csv")
    described(kb)
    assert [(row["provider"], row["status"]) for row in rows_of(kb)] == [
        ("a", "ok"),
        ("a", "ok"),
        ("b", "dup_exact"),
    ]
    remove_source(kb, "a")
    described(kb)
    assert [(row["provider"], row["status"]) for row in rows_of(kb)] == [("b", "ok")]
    remove_source(kb, "b")
    described(kb)
    assert rows_of(kb) == []
    assert "category/added-00000.parquet" not in read_manifest(kb).parts
    assert not (kb / "added").exists()
    with pytest.raises(InputError, match="none was added"):
        remove_source(kb, "b")


def test_other_categories(kb: Path) -> None:
    """Sources keep every class: a category that comes later gets its texts, a lost one loses them."""
    added_to(kb, CUPL)
    described(kb)
    write_categories(kb, {"zebra": "Zebra", "bell": "church bell"})
    described(kb)
    assert [row["category_id"] for row in rows_of(kb)] == ["bell", "zebra"]
    write_categories(kb, NAMES)
    assert {row["category_id"] for row in (described(kb), rows_of(kb))[1]} == {"bell", "dog"}


def test_in_place_of_the_model(kb: Path) -> None:
    """With "added" no model is asked about a category that has texts; going back costs nothing."""
    added_to(kb, {"dog": ["A dog wags its tail."], "church bell": ["It rings."]})
    only = replace(FAKE, texts="added")
    described(kb, only)
    assert {row["category_id"] for row in rows_of(kb, "fake")} == {"bell", "sphere"}
    assert {row["category_id"] for row in rows_of(kb) if row["status"] == "ok"} == {"dog"}
    both = described(kb)
    assert {row["category_id"] for row in rows_of(kb, "fake")} == set(NAMES)
    described(kb, replace(FAKE, texts="written"))
    assert rows_of(kb) == []
    described(kb, only)
    assert {row["category_id"] for row in rows_of(kb, "fake")} == {"bell", "sphere"}
    assert described(kb) == both


def test_no_model_is_needed(kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every category has added texts, an endpoint without a key and without a server does."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = replace(
        FAKE, describer="openai", model="m", base_url="http://127.0.0.1:9/v1", texts="added", contrast_pairs=1
    )
    texts = {name: [f"A {name} stands on a table."] for name in NAMES.values()}
    added_to(kb, texts, settings=settings)
    described(kb, settings)
    assert [row["status"] for row in rows_of(kb)] == ["ok"] * 3
    found = forecast(kb, kb.parent, settings, DescribeSamples(), encoder=MINILM)
    assert [each.most_requests for each in found] == [0, 0]
    asking = forecast(kb, kb.parent, replace(settings, texts="both"), DescribeSamples(), encoder=MINILM)
    assert asking[0].expected.requests > 0


@pytest.mark.parametrize("content", ["{", {"hen": ["A hen."]}, {"dog": [1]}, {"dog": ["A \x00dog."]}])
def test_nothing_is_half_written(kb: Path, content: Any) -> None:
    """A file that is wrong, or that has no class of ours, changes nothing."""
    before = sorted(kb.rglob("*"))
    with pytest.raises(InputError):
        added_to(kb, content)
    assert sorted(kb.rglob("*")) == before


def test_names_of_sources(kb: Path) -> None:
    """By default the file's; a taken one is refused, with what to do."""
    added_to(kb, CUPL)
    with pytest.raises(InputError, match="holds other texts already; give another --name"):
        added_to(kb, {"dog": ["A dog digs."]})
    with pytest.raises(InputError, match="is no name for a source"):
        add_texts(kb, kb.parent / "cupl.json", FAKE, encoder=MINILM, name="../x")
    assert add_texts(kb, kb.parent / "cupl.json", FAKE, encoder=MINILM, name="more").source.name == "more"


def test_before_ingest(tmp_path: Path) -> None:
    """Without categories there is nothing to match, and it is said what to do."""
    with pytest.raises(KnowledgeBaseError, match="read in a manifest first"):
        added_to(tmp_path / "kb", CUPL)


def test_a_damaged_source(kb: Path) -> None:
    """It is named, with how to get it back; no row is written from what is left of it."""
    added_to(kb, CUPL)
    before = described(kb)
    path = kb / "added" / "cupl.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DamagedError, match="add-texts --remove cupl"):
        described(kb)
    assert (kb / "descriptions/category/added-00000.parquet").read_bytes() == before["added-00000.parquet"]
    damaged = verify(kb)
    assert ("error", "file damaged") in damaged.totals
    assert "add-texts --remove cupl" in str(damaged)
    path.unlink()
    with pytest.raises(DamagedError, match="missing"):
        described(kb)
    remove_source(kb, "cupl")
    described(kb)
    path.parent.mkdir()
    path.write_bytes(whole)
    seal_sources(kb)
    assert described(kb) == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"text": "A dog flies."}, "column"),
        ({"provider": "other"}, "column"),
        ({"model_resolved": "gpt-5"}, "column"),
        ({"category_id": "bell"}, "column"),
        ({"cost_usd": 1.0}, "column"),
        ({"request_key": "0" * 64}, "added text unknown"),
        ({"row_id": "1" * 64}, "row id"),
        ({"source": "fake"}, "no ledger entry"),
    ],
)
def test_verify_compares_with_the_source(
    kb: Path, change: dict[str, Any], what: str, rewritten: Callable[[Path, str, dict[str, Any]], None]
) -> None:
    """Each column of an added row that follows from its source."""
    added_to(kb, {"dog": ["A dog wags its tail."]})
    described(kb)
    rewritten(kb, "added-00000", change)
    found = verify(kb)
    assert ("error", what) in found.totals, str(found)


@pytest.fixture
def rewritten() -> Callable[[Path, str, dict[str, Any]], None]:
    """Change the first row of a part, as somebody would who also mends the manifest."""
    from kb_builder.tables.parts import write_part

    def change(kb: Path, name: str, columns: dict[str, Any]) -> None:
        rows = pq.read_table(kb / f"descriptions/category/{name}.parquet").to_pylist()
        rows[0] |= columns
        write_part(kb, "category", name, rows)

    return change


def test_verify_knows_what_is_pending(kb: Path) -> None:
    """Texts that no run has taken in yet are a note; rows of a removed source are an error until then."""
    described(kb)
    added_to(kb, {"dog": ["A dog wags its tail."]})
    found = verify(kb)
    assert found.clean
    assert "1 have no row; `unibind run` takes them in" in str(found)
    described(kb)
    assert "have no row" not in str(verify(kb))
    remove_source(kb, "cupl")
    assert ("error", "added text unknown") in verify(kb).totals
    described(kb)
    assert verify(kb).clean
