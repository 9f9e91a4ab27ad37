"""kb_builder.describe.contrasts: who is taken for whom, and texts that tell them apart."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.errors import RunError
from data.seals import seal
from kb_builder.ask.ledger import Entry, iter_entries
from kb_builder.ask.request import Request, request_key
from kb_builder.describe import confusable
from kb_builder.describe.categories import describe_category_shards
from kb_builder.describe.confusable import Confusable, find_confusable, rank_rivals
from kb_builder.describe.contrasts import describe_contrasts
from kb_builder.encoders import load_encoder
from kb_builder.encoders.tokens import MINILM
from kb_builder.fake_openai.texts import sentence
from kb_builder.settings import DescribeCategories
from kb_builder.tables.parts import read_manifest, write_part
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.verify import verify
from tests.planted import write_categories

NAMES = ["wolf", "dog", "trumpet", "trombone"]
PART = "descriptions/category/contrast-00000.parquet"
# What may differ between an undisturbed run and one that was interrupted and resumed.
WHEN = {"created_at", "latency_ms", "attempts", "run_id"}


def knowledge_base(folder: Path, names: Sequence[str] = NAMES) -> Path:
    write_categories(folder, {name: name for name in names})
    return folder


def online(url: str, **changes: Any) -> DescribeCategories:
    settings = DescribeCategories(
        describer="openai",
        model="m",
        base_url=url,
        n=5,
        items=1,
        near_cosine=None,
        contrast_texts=4,
        concurrency=4,
        request_timeout_s=30.0,
    )
    return replace(settings, **changes)


def asked(body: Mapping[str, Any]) -> tuple[str, str | None]:
    """Whom a request is about, and whom it is to be set apart from, if anybody."""
    question = body["messages"][-1]["content"]
    about = re.search(r'"([^"]+)"', question)
    against = re.search(r'for "([^"]+)"', question)
    assert about is not None
    return about[1], against and against[1]


def reply(*texts: str) -> dict[str, Any]:
    """An answer of one text, or the JSON of several."""
    content = texts[0] if len(texts) == 1 else json.dumps({"descriptions": texts})
    return {"body": {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": content}}]}}


def fresh(body: dict[str, Any], nth: int = 1) -> dict[str, Any]:
    """Texts about the right thing that nobody said before, as many as the schema wants."""
    draw = random.Random(body["seed"])
    wanted = 1
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        wanted = schema["properties"]["descriptions"]["minItems"]
    return reply(*(sentence(draw, asked(body)[0]) for _ in range(wanted)))


def first_pass(kb: Path, settings: DescribeCategories) -> list[dict[str, Any]]:
    """The `ok` rows of the first pass, which is run here."""
    describe_category_shards(kb, [0], settings, run_id="first", encoder=MINILM)
    return [row for row in read_rows(kb / "descriptions" / "category") if row["status"] == "ok"]


def contrasts(kb: Path) -> list[dict[str, Any]]:
    """The rows of the second pass, less what may differ between two runs."""
    return [{name: value for name, value in row.items() if name not in WHEN} for row in read_rows(kb / PART)]


def pairs_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(category, rival) of the rows, each once, in order."""
    return list(dict.fromkeys((row["category_id"], row["aspect"].removeprefix("contrast:")) for row in rows))


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


def brute_force(
    ids: Sequence[str], groups: Sequence[npt.NDArray[np.float32]], *, pairs: int, candidates: int = 20
) -> dict[str, list[tuple[str, float, float]]]:
    """Text by text in double precision: of each category, the nearest (rival, mixing, cosine)."""
    exact = [group.astype(np.float64) for group in groups]
    means = [group.mean(axis=0) / np.linalg.norm(group.mean(axis=0)) for group in exact]
    found = {}
    for mine, name in enumerate(ids):
        others = [other for other in range(len(ids)) if other != mine]
        others = sorted(others, key=lambda other: -float(means[mine] @ means[other]))[:candidates]
        hits: Counter[int] = Counter()
        for place, text in enumerate(exact[mine]):
            near = [(float(text @ each), mine) for at, each in enumerate(exact[mine]) if at != place]
            near += [(float(text @ each), other) for other in others for each in exact[other]]
            hits[max(near)[1]] += 1
        told = [
            (ids[other], hits[other] / len(exact[mine]), float(means[mine] @ means[other]))
            for other in others
        ]
        found[name] = sorted(told, key=lambda each: (-each[1], -each[2]))[:pairs]
    return found


@pytest.mark.parametrize(("block", "seed"), [(512, 0), (7, 1), (1, 2)])
def test_rivals_are_those_of_a_brute_force(monkeypatch: pytest.MonkeyPatch, block: int, seed: int) -> None:
    """Shares, cosines and order, for more categories than are looked at, of one to nine texts each."""
    monkeypatch.setattr(confusable, "_BLOCK", block)
    draw = np.random.default_rng(seed)
    ids = [f"c{number:02d}" for number in range(33)]
    sizes = draw.integers(1, 10, len(ids))
    groups = [unit(draw.normal(size=24) + 2 * draw.normal(size=(size, 24))) for size in sizes]
    starts = np.cumsum([0, *sizes])
    found = rank_rivals(ids, np.concatenate(groups), starts, pairs=5)
    expected = brute_force(ids, groups, pairs=5)
    assert [pair.category_id for pair in found] == [name for name in ids for _ in range(5)]
    assert [pair.rival_id for pair in found] == [each[0] for name in ids for each in expected[name]]
    told = [value for pair in found for value in (pair.mixing, pair.cosine)]
    assert told == pytest.approx(
        [value for name in ids for each in expected[name] for value in each[1:]], abs=6e-5
    )
    assert brute_force(ids, groups, pairs=5, candidates=21) != expected, "who is looked at matters"


def axis(*places: int) -> npt.NDArray[np.float32]:
    """Unit vectors along these axes: their products are exact."""
    return np.eye(8, dtype=np.float32)[list(places)]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        # Shares and cosines are equal: by name.
        ({"a": axis(0, 1), "b": axis(0, 2), "c": axis(0, 3)}, [("b", 0.5, 0.5), ("c", 0.0, 0.5)]),
        # A text is as near to both: the nearer mean has it, though the other comes first.
        ({"a": axis(0, 1), "b": axis(0, 2), "c": axis(0)}, [("c", 0.5, 0.7071), ("b", 0.0, 0.5)]),
        # So it is where the other seems nearer by the last digit alone.
        (
            {"a": axis(0, 1), "b": axis(0, 2), "c": axis(0) * np.nextafter(np.float32(1), np.float32(0))},
            [("c", 0.5, 0.7071), ("b", 0.0, 0.5)],
        ),
        # As near to its own as to another's is not mixed.
        ({"a": axis(0, 0), "b": axis(0), "c": axis(1)}, [("b", 0.0, 1.0), ("c", 0.0, 0.0)]),
        # A category of one text has nothing of its own beside it.
        ({"a": axis(0), "b": axis(1, 2), "c": axis(1, 3, 4)}, [("b", 1.0, 0.0), ("c", 0.0, 0.0)]),
    ],
)
def test_ties_have_a_rule(
    groups: Mapping[str, npt.NDArray[np.float32]], expected: list[tuple[str, float, float]]
) -> None:
    """Equal shares, equally near texts and noise in the last digit never let chance decide."""
    starts = np.cumsum([0, *map(len, groups.values())])
    found = rank_rivals(list(groups), np.concatenate(list(groups.values())), starts, pairs=2)
    assert found[:2] == [Confusable("a", *each) for each in expected]


def test_a_category_has_no_more_rivals_than_there_are_others() -> None:
    """More pairs than others: every other once, itself never."""
    found = rank_rivals(["a", "b", "c"], axis(0, 1, 2), np.arange(4), pairs=9)
    told = [(pair.category_id, pair.rival_id) for pair in found]
    assert told == [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]


def test_confusable_are_those_whose_texts_mix(
    tmp_path: Path, chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `ok` texts count, of each category the first so many, with the vectors of the encoder."""
    monkeypatch.setattr(confusable, "TEXTS_PER_CATEGORY", 4)
    kb = knowledge_base(tmp_path)
    stray = reply("It has four quick legs.")
    server = chat_server(lambda body, nth: fresh(body) if body["seed"] % 3 else stray)
    ok = first_pass(kb, online(server.url))
    assert len(ok) < len(read_rows(kb / "descriptions" / "category"))
    ids = sorted(NAMES)
    texts = [[row["text"] for row in ok if row["category_id"] == name] for name in ids]
    assert min(map(len, texts)) > 4
    encoder = load_encoder("minilm")
    groups = [encoder.encode(mine[:4]) for mine in texts]
    expected = brute_force(ids, groups, pairs=3)
    found = find_confusable(kb, pairs=3)
    assert [pair.rival_id for pair in found] == [each[0] for name in ids for each in expected[name]]
    assert [pair.mixing for pair in found] == [each[1] for name in ids for each in expected[name]]
    cosines = [each[2] for name in ids for each in expected[name]]
    assert [pair.cosine for pair in found] == pytest.approx(cosines, abs=6e-5)


def test_each_is_set_apart_from_the_one_it_is_taken_for(
    tmp_path: Path, chat_server: Callable[..., Any]
) -> None:
    """A wolf from a dog, a trumpet from a trombone: named in the question, never in the text."""
    kb = knowledge_base(tmp_path)
    server = chat_server(fresh)
    settings = online(server.url)
    first_pass(kb, settings)
    before = server.seen.total()
    summary = describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    rows = read_rows(kb / PART)
    twins = [("dog", "wolf"), ("trombone", "trumpet"), ("trumpet", "trombone"), ("wolf", "dog")]
    assert pairs_of(rows) == twins
    assert Counter(row["category_id"] for row in rows) == dict.fromkeys(NAMES, 4)
    requests = {entry.key: json.loads(entry.request) for entry in list(iter_entries(kb))}
    for row in rows:
        rival = row["aspect"].removeprefix("contrast:")
        question = requests[row["request_key"]]["messages"][-1][1]
        assert f'for "{rival}"' in question and rival not in row["text"].lower()
        assert row["category_id"] in row["text"].lower()
        assert (row["status"], row["run_id"]) == ("ok", "second")
        assert row["template_id"].startswith("contrast/contrast-") and row["modality"] is not None
    closest = summary.pop("closest")
    assert summary == {
        "categories": 4,
        "pairs": 4,
        "requests": 16,
        "answered_from_ledger": 0,
        "ok": 16,
        "rejected": {},
        "saturated": {},
        "spent_usd": None,
        "saved_usd": 0.0,
    }
    assert server.seen.total() - before == 16
    found = {(pair.category_id, pair.rival_id): pair for pair in find_confusable(kb, pairs=1)}
    assert closest == sorted(closest, key=lambda each: (-each[2], -each[3], each[0]))
    assert {(each[0], each[1]): Confusable(*each) for each in closest} == found
    assert read_manifest(kb).parts["category/contrast-00000.parquet"].rows == 16
    verification = verify(kb)
    assert verification.clean, str(verification)
    assert set(verification.totals) == {("note", "no checksums yet")}, str(verification)


def test_several_rivals_and_several_texts_per_request(
    tmp_path: Path, chat_server: Callable[..., Any]
) -> None:
    """One rival after the other, nearest first; no request asks for more texts than a pair should have."""
    kb = knowledge_base(tmp_path, NAMES[:3])
    settings = online(chat_server(fresh).url, items=4, contrast_pairs=2, contrast_texts=3)
    first_pass(kb, settings)
    summary = describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    rows = read_rows(kb / PART)
    nearest = [(pair.category_id, pair.rival_id) for pair in find_confusable(kb, pairs=2)]
    assert pairs_of(rows) == nearest and len(nearest) == 6
    assert {row["max_tokens"] for row in rows} == {3 * 40 + 32}
    assert set(Counter((row["category_id"], row["aspect"]) for row in rows).values()) == {3}
    assert (summary["categories"], summary["pairs"], summary["requests"]) == (3, 6, 6)
    assert summary["ok"] == len(rows) == 18
    assert verify(kb).clean


def test_fewer_texts_than_wanted_are_reported_over_all_rivals(
    tmp_path: Path, chat_server: Callable[..., Any]
) -> None:
    """Where the texts against one rival run dry, the category's count holds those against the others."""

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        about, against = asked(body)
        return (
            reply("The dog wags its long bushy tail.") if (about, against) == ("dog", "wolf") else fresh(body)
        )

    kb = knowledge_base(tmp_path)
    settings = online(chat_server(script).url, contrast_pairs=3, max_requests_per_text=1.5)
    first_pass(kb, settings)
    summary = describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    assert summary["saturated"] == {"dog": 4 + 4 + 1}
    assert summary["rejected"] == {"dup_exact": 5}


def test_a_text_that_names_the_rival_is_rejected(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """In the plural too; other texts make up for it. In the first pass the same text may stand."""

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        if body["seed"] % 3:
            return fresh(body)
        said = fresh(body)["body"]["choices"][0]["message"]["content"]
        return reply(f"{said[:-1]}, unlike {'wolves' if asked(body)[0] == 'dog' else 'dogs'}.")

    kb = knowledge_base(tmp_path, ["dog", "wolf"])
    settings = online(chat_server(script).url)
    assert any("unlike" in row["text"] for row in first_pass(kb, settings))
    summary = describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    rows = read_rows(kb / PART)
    named = [row for row in rows if "unlike" in row["text"]]
    assert {row["category_id"] for row in named} == {"dog", "wolf"}
    assert {(row["status"], row["reason"]) for row in named} == {
        ("other_name", "names what it is to be set apart from")
    }
    assert summary["rejected"] == {"other_name": len(named)} and summary["saturated"] == {}
    assert summary["ok"] >= 8
    assert verify(kb).clean


def test_a_text_of_the_first_pass_is_no_news(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """Said again word for word or with a word more, it is a duplicate of the first part's row."""
    known: dict[str, list[str]] = {}

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        about, against = asked(body)
        if against is None or body["seed"] % 3 == 0:
            return fresh(body)
        text = known[about][body["seed"] % len(known[about])]
        return reply(text if body["seed"] % 3 == 1 else f"{text[:-1]} too.")

    kb = knowledge_base(tmp_path, ["dog", "wolf"])
    settings = online(chat_server(script).url)
    first = {row["row_id"]: row for row in first_pass(kb, settings)}
    for row in first.values():
        known.setdefault(row["category_id"], []).append(row["text"])
    describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    rows = read_rows(kb / PART)
    again = [row for row in rows if row["status"] in {"dup_exact", "dup_near"}]
    assert {row["status"] for row in again} == {"dup_exact", "dup_near"}
    for row in again:
        original = first[row["dup_of"]]
        assert original["category_id"] == row["category_id"]
        assert row["text"] == (
            original["text"] if row["status"] == "dup_exact" else f"{original['text'][:-1]} too."
        )
    assert Counter(row["category_id"] for row in rows if row["status"] == "ok").keys() == {"dog", "wolf"}
    verification = verify(kb)
    assert verification.clean, str(verification)


def test_interrupted_and_resumed(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """Stopped in the middle and gone on with: the undisturbed table, and nothing is asked twice."""
    answers: Counter[int] = Counter()
    quota = 15 + 6

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        if answers.total() >= quota:
            error = {"message": "You exceeded your quota", "code": "insufficient_quota"}
            return {"status": 429, "body": {"error": error}}
        answers[body["seed"]] += 1
        return fresh(body)

    kb = knowledge_base(tmp_path / "stopped", ["dog", "trumpet", "wolf"])
    settings = online(chat_server(script).url, contrast_pairs=2)
    first_pass(kb, settings)
    assert len(list(iter_entries(kb))) == 15
    with pytest.raises(RunError, match="quota"):
        describe_contrasts(kb, settings, run_id="stopped", encoder=MINILM)
    kept = len(list(iter_entries(kb))) - 15
    assert 0 < kept < 24 and not (kb / PART).exists()

    quota = 1000
    summary = describe_contrasts(kb, settings, run_id="resumed", encoder=MINILM)
    assert (summary["requests"], summary["answered_from_ledger"]) == (24, kept)
    assert set(answers.values()) == {1} and answers.total() == 15 + 24
    runs = Counter(row["run_id"] for row in read_rows(kb / PART))
    assert runs == {"stopped": kept, "resumed": 24 - kept}

    calm = knowledge_base(tmp_path / "calm", ["dog", "trumpet", "wolf"])
    first_pass(calm, settings)
    describe_contrasts(calm, settings, run_id="calm", encoder=MINILM)
    assert contrasts(kb) == contrasts(calm)


def test_a_second_run_asks_nobody(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """The part is made again from the ledger alone, to the byte."""
    kb = knowledge_base(tmp_path, ["dog", "wolf"])
    server = chat_server(fresh)
    settings = online(server.url)
    first_pass(kb, settings)
    first = describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    content, sent = (kb / PART).read_bytes(), server.seen.total()
    again = describe_contrasts(kb, settings, run_id="third", encoder=MINILM)
    assert again == first | {"answered_from_ledger": first["requests"], "spent_usd": 0.0, "saved_usd": None}
    assert (kb / PART).read_bytes() == content and server.seen.total() == sent


class Shuffled:
    """An asker with every answer of a ledger, in an order of its own."""

    window = 16

    def __init__(self, kb: Path, order: random.Random) -> None:
        self.entries = {entry.key: entry for entry in list(iter_entries(kb))}
        self.order = order

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        for _ in range(self.order.randrange(50)):
            await asyncio.sleep(0)
        return [self.entries[request_key(request)] for request in requests]


def test_the_order_of_answers_changes_no_row(tmp_path: Path) -> None:
    """Whichever answers come first, the part is the same to the byte."""
    kb = knowledge_base(tmp_path, NAMES[:3])
    settings = DescribeCategories(describer="fake", n=5, near_cosine=None, contrast_pairs=2)
    first_pass(kb, settings)
    describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    content = (kb / PART).read_bytes()
    for seed in range(2):
        describe_contrasts(kb, settings, run_id="r", asker=Shuffled(kb, random.Random(seed)), encoder=MINILM)
        assert (kb / PART).read_bytes() == content


def forget(kb: Path, entry_of: Mapping[str, Any]) -> None:
    """Take the answer behind a row out of the ledger."""
    with closing(sqlite3.connect(kb / "ledger.sqlite")) as connection, connection:
        key = entry_of["request_key"]
        assert connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount == 1
    seal(kb, [kb / "ledger.sqlite"], "ledger.sqlite")


def test_a_replay_asks_nobody(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """The same rows from the ledger alone; where an answer is missing that category ends, and no other."""
    kb = knowledge_base(tmp_path, ["dog", "trumpet", "wolf"])
    server = chat_server(fresh)
    settings = online(server.url, contrast_pairs=2)
    first_pass(kb, settings)
    describe_contrasts(kb, settings, run_id="second", encoder=MINILM)
    rows, entries, sent = read_rows(kb / PART), list(iter_entries(kb)), server.seen.total()
    (kb / PART).unlink()
    assert (
        describe_contrasts(kb, settings, run_id="r", replay=True, encoder=MINILM)["answered_from_ledger"]
        == len(rows)
        == 24
    )
    assert (read_rows(kb / PART), list(iter_entries(kb))) == (rows, entries)

    forget(kb, rows[1])  # the dog's, against its first rival
    forget(kb, rows[23])  # the wolf's, against its second
    (kb / PART).unlink()  # else it would cite them still: a ledger that lacks what is cited was lost
    summary = describe_contrasts(kb, settings, run_id="r", replay=True, encoder=MINILM)
    left = [rows[0], *rows[2:4], *rows[8:23]]
    assert [row["category_id"] for row in left] == ["dog"] * 3 + ["trumpet"] * 8 + ["wolf"] * 7
    assert read_rows(kb / PART) == left
    assert summary["saturated"] == {"dog": 3, "wolf": 7}
    assert (summary["requests"], summary["pairs"], server.seen.total()) == (18, 6, sent)


@pytest.mark.parametrize(
    ("names", "changes", "reason"),
    [
        (["dog", "wolf"], {"contrast_pairs": 0}, "contrast_pairs = 0"),
        (["dog", "wolf"], {"describer": "local", "model": None}, "describer 'local' is too small"),
        (["dog"], {}, "fewer than two categories have texts"),
        (["dog", "wolf", "mute"], {}, None),
        (["dog", "mute"], {}, "fewer than two categories have texts"),
    ],
)
def test_where_there_is_nothing_to_set_apart(
    tmp_path: Path,
    chat_server: Callable[..., Any],
    names: list[str],
    changes: dict[str, Any],
    reason: str | None,
) -> None:
    """Nobody is asked, the reason is told, and the part of an earlier run goes, with its line."""

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        return reply("I cannot help.") if asked(body)[0] == "mute" else fresh(body)

    kb = knowledge_base(tmp_path, names)
    server = chat_server(script)
    settings = online(server.url, max_requests_per_text=1.0)
    old = first_pass(kb, settings)[:1]
    write_part(kb, "category", "contrast-00000", old)
    write_part(kb, "category", "contrast-00001", old)
    sent = server.seen.total()
    summary = describe_contrasts(kb, replace(settings, **changes), run_id="second", encoder=MINILM)
    parts = {"category/part-00000.parquet"}
    if reason is None:
        assert pairs_of(read_rows(kb / PART)) == [("dog", "wolf"), ("wolf", "dog")]
        assert summary["pairs"] == 2 and server.seen.total() > sent
        parts.add("category/contrast-00000.parquet")
    else:
        assert summary["pairs"] == 0 and summary["skipped"].startswith(reason)
        assert server.seen.total() == sent
    assert read_manifest(kb).parts.keys() == parts
    assert {f"category/{path.name}" for path in (kb / "descriptions/category").iterdir()} == parts
    assert verify(kb).clean
