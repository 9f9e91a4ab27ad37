"""kb_builder.verify.reparse: stored answers, judged again by other rules; nobody is asked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import KnowledgeBaseError
from data.files import hash_json, hash_text
from data.manifest.read import Manifest
from data.sample import Category, Sample
from kb_builder.describe.categories import describe_category_shards
from kb_builder.describe.contrasts import describe_contrasts
from kb_builder.describe.rows import row_id
from kb_builder.describe.samples import describe_sample_shards
from kb_builder.describers.fake import fake_answer
from kb_builder.encoders.tokens import MINILM, count_tokens
from kb_builder.gates.names import normalise
from kb_builder.settings import DescribeCategories, DescribeSamples
from kb_builder.tables.ingest import ingest
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.reparse import Reparsed, reparse
from kb_builder.verify.verify import verify

SAMPLES = DescribeSamples()


def categories(url: str, **changes: Any) -> DescribeCategories:
    settings = DescribeCategories(
        describer="openai", model="m", base_url=url, n=8, items=1, near_cosine=None, contrast_texts=2
    )
    return replace(settings, **changes)


@pytest.fixture
def described(tmp_path: Path, chat_server: Callable[..., Any]) -> tuple[Path, str, Any]:
    """A finished knowledge base of two categories, with contrasts, a measured and a given sample."""
    for name in ("a", "b"):
        Image.fromarray(np.full((8, 8, 3), (200, 30, 30), np.uint8)).save(tmp_path / f"{name}.png")
    samples = (Sample("a", "image", "a.png"), Sample("b", "image", "b.png", description="a red square"))
    kb = tmp_path / "kb"
    ingest(Manifest(tmp_path, samples, (Category("dog", "dog"), Category("bell", "bell"))), kb)
    server = chat_server()
    settings = categories(server.url)
    describe_category_shards(kb, [0], settings, run_id="first", encoder=MINILM)
    describe_contrasts(kb, settings, run_id="first", encoder=MINILM)
    describe_sample_shards(kb, tmp_path, [0], SAMPLES, run_id="first", encoder=MINILM)
    return kb, server.url, server


def again(kb: Path, settings: DescribeCategories, samples: DescribeSamples = SAMPLES) -> Reparsed:
    return reparse(kb, kb.parent, settings, samples, run_id="first", encoder=MINILM)


def parts(kb: Path) -> dict[str, bytes]:
    folder = kb / "descriptions"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_the_same_rules_give_the_same_bytes(described: tuple[Path, str, Any]) -> None:
    """Nothing has changed, so nothing changes, and the server hears nothing of it."""
    kb, url, server = described
    before, asked = parts(kb), server.seen.total()
    done = again(kb, categories(url))
    assert parts(kb) == before
    assert done.changed == 0
    assert sum(done.moves.values()) == len(read_rows(kb / "descriptions" / "category")) + 2
    assert "0 of them changed; nothing was sent" in str(done)
    assert server.seen.total() == asked


def test_stricter_rules_reject_and_a_later_run_asks_for_what_is_missing(
    described: tuple[Path, str, Any],
) -> None:
    """A lower threshold makes near duplicates of kept rows; going back brings every row back, unpaid."""
    kb, url, server = described
    before, asked = parts(kb), server.seen.total()
    strict = categories(url, near_jaccard=0.15)
    done = again(kb, strict)
    rejected = done.moves[("category", "ok", "dup_near")]
    assert rejected > 0
    assert set(done.short) <= {"dog", "bell"}
    assert done.short
    assert "fewer texts than wanted" in str(done)
    assert verify(kb).clean
    assert server.seen.total() == asked
    back = again(kb, categories(url))
    assert back.moves[("category", "dup_near", "ok")] == rejected
    assert parts(kb) == before
    again(kb, strict)
    describe_category_shards(kb, [0], strict, run_id="second", encoder=MINILM)
    assert server.seen.total() > asked


def test_a_lost_and_a_damaged_part_are_written_anew(described: tuple[Path, str, Any]) -> None:
    """What is derived can be lost: the ledger gives every part back, byte for byte."""
    kb, url, _ = described
    before = parts(kb)
    (kb / "descriptions" / "category" / "part-00000.parquet").write_bytes(b"PAR1 torn")
    (kb / "descriptions" / "sample" / "part-00000.parquet").unlink()
    (kb / "descriptions" / "manifest.json").unlink()
    done = again(kb, categories(url))
    assert done.unreadable == ("category/part-00000.parquet",)
    assert done.moves[("sample", None, "ok")] == 2
    assert "could not be read before: category/part-00000.parquet" in str(done)
    assert parts(kb) == before


def test_an_answer_that_is_not_there_ends_its_category_only(described: tuple[Path, str, Any]) -> None:
    """More texts wanted than were asked for: what is there stays, and the shortage is told."""
    kb, url, server = described
    asked = server.seen.total()
    done = again(kb, categories(url, n=20))
    assert {*done.short} == {"dog", "bell"}
    assert done.moves.get(("category", "ok", None), 0) == 0
    assert server.seen.total() == asked


def with_categories(folder: Path, *names: str) -> Path:
    """A knowledge base of these categories, and of one picture that was measured."""
    Image.fromarray(np.full((8, 8, 3), (200, 30, 30), np.uint8)).save(folder / "a.png")
    known = tuple(Category(name, name) for name in names)
    ingest(Manifest(folder, (Sample("a", "image", "a.png"),), known), folder / "kb")
    describe_sample_shards(folder / "kb", folder, [0], SAMPLES, run_id="first", encoder=MINILM)
    return folder / "kb"


def as_version_2_wrote_it(kb: Path) -> int:
    """Turn the texts of the dog into what the parser of version 2 made of `…<|im_end|>`; returns how many."""
    path = kb / "descriptions" / "category" / "part-00000.parquet"
    rows = read_rows(path)
    ids = {row["row_id"]: row_id(row["request_key"], choice=0, item=0, parser_version="2") for row in rows}
    for row in rows:
        row["parser_version"] = "2"
        row["row_id"] = ids[row["row_id"]]
        row["dup_of"] = ids[row["dup_of"]] if row["dup_of"] else None
        if row["category_id"] == "dog" and row["status"] == "ok":
            row["text"] += "<|imend|>."
        row["n_chars"], row["text_norm_hash"] = len(row["text"]), hash_text(normalise(row["text"]))
        [row["n_tokens"]] = count_tokens([row["text"]])
    write_part(kb, "category", "part-00000", rows)
    return sum(row["text"].endswith("<|imend|>.") for row in rows)


def test_what_an_earlier_parser_kept_is_read_again(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """Before, verify says what to do; after, it is clean, and the rows with another text were counted."""
    kb = with_categories(tmp_path, "dog", "bell")

    def with_mark(body: dict[str, Any], nth: int) -> dict[str, Any]:
        messages = tuple((message["role"], message["content"]) for message in body["messages"])
        answer = fake_answer(messages, hash_json(body), model="m")
        answer["choices"][0]["message"]["content"] += "<|im_end|>\n<|im_start|>user\nMore."
        return {"body": answer}

    settings = categories(chat_server(with_mark).url)
    describe_category_shards(kb, [0], settings, run_id="first", encoder=MINILM)
    new = parts(kb)
    count = as_version_2_wrote_it(kb)
    assert count >= 8
    before = verify(kb)
    assert before.clean and "`unibind kb reparse` renews it" in str(before)
    done = again(kb, settings)
    assert done.rewritten == {("category", "ok", "ok"): count} and done.changed == count
    assert f"{count} of them changed" in str(done) and "ok, another text" in str(done)
    assert verify(kb).clean and "another parser" not in str(verify(kb))
    assert parts(kb)["category/part-00000.parquet"] == new["category/part-00000.parquet"]
    texts = [row["text"] for row in read_rows(kb / "descriptions" / "category") if row["status"] == "ok"]
    assert texts and not any("<" in text for text in texts)


def test_an_answer_of_which_more_texts_are_read_now(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """A row that held a list as its text becomes its first text; the others are new."""
    kb = with_categories(tmp_path, "dog")
    texts = ["The dog barks loudly at strangers.", "A dog guards some sheep in winter."]

    def as_lines(body: dict[str, Any], nth: int) -> dict[str, Any]:
        lines = "\n".join(json.dumps({"description": text}) for text in texts)
        return {"body": {"choices": [{"finish_reason": "stop", "message": {"content": lines}}]}}

    settings = categories(chat_server(as_lines).url, n=2, items=2)
    describe_category_shards(kb, [0], settings, run_id="first", encoder=MINILM)
    path = kb / "descriptions" / "category" / "part-00000.parquet"
    row = read_rows(path)[0]
    row |= {"text": str(texts), "parser_version": "2", "cost_usd": None}
    row["row_id"] = row_id(row["request_key"], choice=0, item=0, parser_version="2")
    row["n_chars"], row["text_norm_hash"] = len(row["text"]), hash_text(normalise(row["text"]))
    [row["n_tokens"]] = count_tokens([row["text"]])
    write_part(kb, "category", "part-00000", [row])
    assert verify(kb).clean
    done = again(kb, settings)
    category = {move: count for move, count in done.moves.items() if move[0] == "category"}
    assert category == {("category", "ok", "ok"): 1, ("category", None, "ok"): 1}
    assert done.changed == 2
    assert [row["text"] for row in read_rows(path)] == texts
    assert verify(kb).clean


@pytest.mark.parametrize("loss", ["gone", "emptied", "older"])
def test_a_lost_ledger_takes_no_text_with_it(described: tuple[Path, str, Any], loss: str) -> None:
    """No part is written anew from less than it was made from, and nothing is paid for again."""
    kb, url, server = described
    before, asked = parts(kb), server.seen.total()
    ledger = kb / "ledger.sqlite"
    if loss == "older":
        with closing(sqlite3.connect(ledger)) as connection, connection:
            connection.execute("DELETE FROM entries WHERE rowid = (SELECT min(rowid) FROM entries)")
    else:
        ledger.unlink() if loss == "gone" else ledger.write_bytes(b"")
    with pytest.raises(KnowledgeBaseError, match=r"lost or replaced\. Restore it"):
        again(kb, categories(url))
    with pytest.raises(KnowledgeBaseError, match=r"lost or replaced\. Restore it"):
        describe_category_shards(kb, [0], categories(url), run_id="second", encoder=MINILM)
    assert parts(kb) == before
    assert server.seen.total() == asked
    if loss == "gone":
        assert verify(kb).totals["error", "no ledger entry"] > 0


def test_no_knowledge_base(tmp_path: Path) -> None:
    """There is nothing to judge where nothing was read in."""
    with pytest.raises(KnowledgeBaseError, match=r"categories\.parquet is missing"):
        again(tmp_path / "none", categories("http://127.0.0.1:9/v1"))
    assert not (tmp_path / "none").exists()
