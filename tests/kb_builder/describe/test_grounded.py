"""Texts from what is known: which prompts a category gets, and what they let a model say."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.tabletop.settings import TabletopSettings
from data.tabletop.world import categories
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request, request_key
from kb_builder.describe.categories import describe_category_shards, read_categories
from kb_builder.describe.category import UNKNOWN_TEXTS, CategorySubject, gate_rules, make_category_job
from kb_builder.describe.grounded import Ground
from kb_builder.describe.prompts import Library, fill_prompt, is_grounded, load_prompts
from kb_builder.describers.fake import FakeDescriber, fake_answer
from kb_builder.encoders.tokens import token_counter
from kb_builder.gates.gate import CategoryGate
from kb_builder.gates.names import category_names, normalise, stem
from kb_builder.settings import DescribeCategories
from kb_builder.tables.schemas import CATEGORIES, MODALITIES, read_rows, write_table

LOCAL = DescribeCategories(describer="local")


def _kb(
    folder: Path, *names: str, notes: str | None = None, modalities: tuple[str, ...] = ("image",)
) -> Path:
    rows = [
        {"category_id": name.replace(" ", "-"), "name": name, "aliases": [], "parent": None, "notes": notes}
        for name in names
    ]
    write_table(folder / "categories.parquet", rows, CATEGORIES)
    write_table(folder / "modalities.parquet", [{"modality": each} for each in modalities], MODALITIES)
    return folder


def _entry(shares: dict[str, float]) -> Entry:
    listed = [{"token": f" {word}", "prob": share} for word, share in shares.items()]
    choice = {"message": {"content": "x"}, "logprobs": {"content": [{"top_probs": listed}]}}
    return Entry(
        key="k",
        request="{}",
        answer=json.dumps({"choices": [choice]}),
        error=None,
        attempts=1,
        latency_ms=1.0,
        created_at=0,
        provider="local",
        source="local",
        run_id="r",
        cost_usd=None,
        base_key="b",
    )


def _answer(request: Request) -> Entry:
    body = json.dumps(fake_answer(request.messages, request_key(request), model="fake-1"))
    return replace(_entry({}), key=request_key(request), answer=body)


def _answered(ground: Ground, known: dict[str, str]) -> Ground:
    """Every choice is answered alike, but that `known` (of a thing by a word) stands out."""

    def entry(request: Request) -> Entry:
        words = [word.strip() for word in request.extra["logit_bias"]]
        thing = str(request.messages[-1][1]).rpartition(". ")[2].rstrip(":").lower()
        mine = known.get(thing)
        if mine not in words:
            return _entry(dict.fromkeys(words, 1 / len(words)))
        return _entry({word: 0.9 if word == mine else 0.1 / (len(words) - 1) for word in words})

    ground.absorb([entry(request) for request in ground.plan()])
    assert ground.plan() == []
    return ground


def _texts(kb: Path, library: Library, place: int = 0) -> list[tuple[str, str]]:
    """(template, what the prompt lets the model say): the opening, with the words that are fixed."""
    found = []
    for prompt in library.prompts:
        _, opening = fill_prompt(prompt, read_categories(kb)[place])
        grammar = str(prompt.extra.get("grammar", "")).removeprefix('root ::= "').removesuffix('"')
        found.append((prompt.template_id, opening + grammar))
    return found


def test_words_of_a_grid_are_said_of_the_whole(tmp_path: Path) -> None:
    """One by one in two ways, then two in one text; nothing else is asked about."""
    kb = _kb(tmp_path, "glass sphere", "glass torus", "cork sphere", "cork torus")
    ground = _answered(
        Ground(read_categories(kb), LOCAL, FakeDescriber(), kb), {"glass": "brittle", "torus": "ring"}
    )
    libraries = ground.libraries()
    glass_torus = next(i for i, each in enumerate(read_categories(kb)) if each.name == "glass torus")
    assert _texts(kb, libraries["glass-torus"], glass_torus) == [
        ("known-model-bend-1", "When pressed, the glass torus proves to be brittle."),
        ("known-model-like-1", "In shape, the glass torus is like a ring."),
        ("known-model-bend-2", "Under a heavy thumb, the glass torus stays brittle."),
        ("known-model-like-2", "From most sides, the glass torus looks like a ring."),
        ("known-model-bend+like", "The glass torus when pressed is brittle and is shaped like a ring."),
    ]
    assert "cork-sphere" not in libraries


def test_notes_and_glosses_are_restated_and_then_repeated(tmp_path: Path) -> None:
    """First as they are, then in the model's own words, which the gate compares with what is known."""
    kb = _kb(tmp_path, "KP-4211", notes='A "ball" of oak. Knocks when tapped.')
    library = Ground(read_categories(kb), LOCAL, FakeDescriber(), kb).libraries()["KP-4211"]
    assert _texts(kb, library)[:5] == [
        ("known-notes-1-1", 'The KP-4211 is a \\"ball\\" of oak.'),
        ("known-notes-2-1", "The KP-4211 knocks when tapped."),
        ("known-notes-1-2", "The KP-4211 is"),
        ("known-notes-2-2", "The KP-4211"),
        ("known-notes-1+2", 'The KP-4211 is a "ball" of oak and knocks when tapped.'),
    ]
    first = library.prompts[2]
    assert first.known == 'KP-4211 a "ball" of oak'
    assert first.extra["logit_bias"] == {' a "ball" of oak.': 2.0}
    zebra = _kb(tmp_path, "zebra")
    library = Ground(read_categories(zebra), LOCAL, FakeDescriber(), zebra).libraries()["zebra"]
    assert {prompt.template_id.rpartition("-")[0] for prompt in library.prompts} == {"known-gloss-1"}


@pytest.mark.parametrize(
    ("modalities", "aspects"),
    [
        (("audio",), {"sound"}),
        (("thermal",), {"heat", "shape"}),
        (("image",), {"look", "material", "shape"}),
        (("text",), {"look", "material", "shape", "sound", "heat", "motion"}),
    ],
)
def test_only_what_samples_show_is_asked(
    tmp_path: Path, modalities: tuple[str, ...], aspects: set[str]
) -> None:
    """No sound where nothing is heard, and nothing but sound where nothing is seen."""
    kb = _kb(tmp_path, "rooster", "frog", modalities=modalities)
    ground = Ground(read_categories(kb), LOCAL, FakeDescriber(), kb)
    assert {each.question.aspect for each in ground._asked} == aspects
    chosen = Ground(
        read_categories(kb), DescribeCategories(describer="local", aspects=("heat",)), FakeDescriber(), kb
    )
    assert {each.question.aspect for each in chosen._asked} == {"heat"}
    assert chosen.libraries() == {}  # no gloss either: nobody asked what it is


def test_what_is_uncertain_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Senses of the dictionary in one line, categories of which nothing is known in another."""
    kb = _kb(tmp_path, "ball", "cube", "KP-4211")
    with caplog.at_level(logging.WARNING):
        libraries = Ground(read_categories(kb), LOCAL, FakeDescriber(), kb).libraries()
    assert set(libraries) == {"cube"}
    dictionary, nothing = (record.message for record in caplog.records)
    assert "ball: 4 senses, none taken" in dictionary
    assert "cube: 2 senses, took" in dictionary
    assert nothing.startswith("nothing is known of 2 categories")


def test_only_a_model_that_knows_little_is_held_to_it() -> None:
    """Endpoints and the fake are asked as before, and the setting turns it off."""
    assert is_grounded(LOCAL)
    assert not is_grounded(DescribeCategories(describer="local", grounded=False))
    assert not is_grounded(DescribeCategories(describer="fake"))
    assert not is_grounded(DescribeCategories(describer="openai", model="gpt-4o-mini"))


def test_a_replay_knows_what_the_ledger_knows(tmp_path: Path) -> None:
    """The bundled model, once: its choices and texts come again from the ledger, row by row."""
    kb = _kb(tmp_path, "glass cone", "glass cube", "cork cone", "cork cube")
    settings = DescribeCategories(n=2, aspects=("material", "use"), near_cosine=None)

    def rows(**how: Any) -> list[dict[str, Any]]:
        describe_category_shards(kb, [0], settings, run_id="r", encoder="minilm", **how)
        return read_rows(kb / "descriptions" / "category")

    first = rows()
    assert {row["template_id"].split("-")[0] for row in first} == {"known"}
    ok = [row for row in first if row["status"] == "ok"]
    assert {row["category_id"] for row in ok} == {"glass-cone", "glass-cube", "cork-cone", "cork-cube"}
    assert all(row["category_id"].replace("-", " ") in row["text"] for row in ok)
    assert {row["source"] for row in first} == {"local"}
    assert rows(replay=True) == first
    assert math.isclose(sum(row["latency_ms"] for row in rows()), sum(row["latency_ms"] for row in first))


def test_what_nothing_is_known_of_gets_a_few_texts(tmp_path: Path) -> None:
    """And so does a category all of whose texts are turned away: none is left without one."""
    kb = _kb(tmp_path, "qwertz", "zebra", notes=None)
    settings = DescribeCategories(n=UNKNOWN_TEXTS + 1, aspects=("use",), near_cosine=None)
    describe_category_shards(kb, [0], settings, run_id="r", encoder="minilm")
    found = read_rows(kb / "descriptions" / "category")
    texts = {name: [row for row in found if row["category_id"] == name] for name in ("qwertz", "zebra")}
    assert 1 <= sum(row["status"] == "ok" for row in texts["qwertz"]) <= UNKNOWN_TEXTS
    assert {row["template_id"].split("-")[0] for row in texts["qwertz"]} == {"teach"}
    assert {row["template_id"].split("-")[0] for row in texts["zebra"]} == {"known"}

    subject = CategorySubject(
        read_categories(kb)[1],
        CategoryGate(
            category_names(read_categories(kb))["zebra"], gate_rules(settings, token_counter("minilm"))
        ),
        make_category_job(
            settings, FakeDescriber(), load_prompts("category_openings"), encoder="minilm", started=0
        ),
        wanted=12,
        library=Library((replace(load_prompts("category_openings").prompts[0], opening="It"),), extra={}),
    )
    asked = 0
    while requests := subject.plan():
        asked += len(requests)
        subject.absorb([_answer(request) for request in requests])
    assert subject.rows[0]["status"] == "no_name"
    assert 1 <= subject.ok <= UNKNOWN_TEXTS < asked


def test_part_numbers_are_described_from_their_notes(tmp_path: Path) -> None:
    """The bundled model says of part numbers what their notes say, and the number with it."""
    coded = categories(TabletopSettings(names="codes"))[:2]
    rows = [
        {
            "category_id": each.category_id,
            "name": each.name,
            "aliases": [],
            "parent": None,
            "notes": each.notes,
        }
        for each in coded
    ]
    write_table(tmp_path / "categories.parquet", rows, CATEGORIES)
    write_table(tmp_path / "modalities.parquet", [{"modality": "event"}], MODALITIES)
    settings = DescribeCategories(n=4, aspects=("use",), near_cosine=None)
    describe_category_shards(tmp_path, [0], settings, run_id="r", encoder="minilm")
    found = read_rows(tmp_path / "descriptions" / "category")
    for each in coded:
        ok = [row for row in found if row["category_id"] == each.category_id and row["status"] == "ok"]
        assert len(ok) >= 4
        known = set(map(stem, normalise(f"{each.name} {each.notes}").split()))
        for row in ok:
            assert each.name in row["text"]
            assert row["template_id"].startswith("known-notes-")
            words = [stem(word) for word in normalise(row["text"]).split()]
            assert sum(word in known for word in words) > len(words) / 2
