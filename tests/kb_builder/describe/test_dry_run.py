"""kb_builder.describe.dry_run: what is told beforehand is what is sent afterwards."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import KnowledgeBaseError, RunError
from data.files import canonical_json, hash_file
from data.seals import seal
from kb_builder.ask.cost import CostEstimate
from kb_builder.ask.ledger import iter_entries
from kb_builder.describe import category as category_texts
from kb_builder.describe.categories import describe_category_shards
from kb_builder.describe.contrasts import describe_contrasts
from kb_builder.describe.dry_run import Forecast, forecast, to_text
from kb_builder.describe.samples import describe_sample_shards
from kb_builder.encoders.tokens import MINILM
from kb_builder.fake_openai.texts import sentence
from kb_builder.settings import DescribeCategories, DescribeSamples, Price
from kb_builder.tables.schemas import GIVEN_DESCRIPTIONS, read_rows, write_table
from tests.planted import write_categories

NAMES = ["dog", "trumpet", "wolf"]
PRICE = Price(input=2.0, output=8.0, date="2026-01-01", batch_share=0.25, image_tokens=1000)
NO_SAMPLES = DescribeSamples()
PART = "descriptions/category/contrast-00000.parquet"
QUOTA = {"status": 429, "body": {"error": {"message": "no quota", "code": "insufficient_quota"}}}


def knowledge_base(folder: Path, names: Sequence[str] = NAMES) -> Path:
    write_categories(folder, {name: name for name in names})
    return folder


def online(url: str, **changes: Any) -> DescribeCategories:
    settings = DescribeCategories(
        describer="openai",
        model="m",
        base_url=url,
        n=6,
        items=1,
        near_cosine=None,
        contrast_texts=2,
        concurrency=4,
        request_timeout_s=30.0,
    )
    return replace(settings, **changes)


def viewer(url: str, **changes: Any) -> DescribeSamples:
    return replace(DescribeSamples(describer="openai", model="v", base_url=url), **changes)


def foretell(
    kb: Path, categories: DescribeCategories, samples: DescribeSamples = NO_SAMPLES
) -> list[Forecast]:
    return forecast(kb, kb.parent / "data", categories, samples, encoder=MINILM)


def reply(*texts: str, finish: str = "stop") -> dict[str, Any]:
    """An answer of one text, or the JSON of several."""
    content = texts[0] if len(texts) == 1 else json.dumps({"descriptions": texts})
    usage = {"prompt_tokens": 20, "completion_tokens": 10 * len(texts)}
    choice = {"finish_reason": finish, "message": {"content": content}}
    return {"body": {"model": "m", "choices": [choice], "usage": usage}}


def about(body: Mapping[str, Any]) -> str:
    """The first thing in quotes that is asked about."""
    found = re.search(r'"([^"]+)"', str(body["messages"][-1]["content"]))
    return found[1] if found else "thing"


def fresh(body: dict[str, Any], nth: int = 1) -> dict[str, Any]:
    """Texts about the right thing that nobody said before, as many as the schema wants."""
    draw = random.Random(body["seed"])
    wanted = 1
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        wanted = schema["properties"]["descriptions"]["minItems"]
    return reply(*(sentence(draw, about(body)) for _ in range(wanted)))


def listing(folder: Path) -> dict[str, str]:
    """Every file, with the hash of its content."""
    return {
        str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def left(found: Sequence[Forecast]) -> list[tuple[int, int, int]]:
    """Of each stage: answered, expected and most requests."""
    return [(each.answered, each.expected.requests, each.most_requests) for each in found]


def remove_answers(kb: Path, words: str, count: int) -> None:
    """Take the last so many answers to requests that hold these words out of the ledger."""
    with closing(sqlite3.connect(kb / "ledger.sqlite")) as connection, connection:
        query = """
            DELETE FROM entries WHERE key IN (
                SELECT key FROM entries WHERE request LIKE ?
                ORDER BY json_extract(request, '$.sample_index') DESC LIMIT ?
            )
        """
        assert connection.execute(query, (f"%{words}%", count)).rowcount == count
    seal(kb, [kb / "ledger.sqlite"], "ledger.sqlite")


@pytest.mark.parametrize("asked", [False, True], ids=["no ledger", "a ledger"])
def test_nothing_is_sent_and_nothing_is_written(
    sensor_kb: Path, chat_server: Callable[..., Any], asked: bool
) -> None:
    """The folders hold the same files with the same bytes, and the server was not called."""
    server = chat_server(fresh)
    settings, samples = online(server.url), viewer(server.url)
    if asked:
        describe_category_shards(sensor_kb, [0], settings, run_id="r", encoder=MINILM)
    folder = sensor_kb.parent
    before, sent = listing(folder), server.seen.total()
    assert ("kb/ledger.sqlite" in before) == asked
    assert [each.expected.requests for each in foretell(sensor_kb, settings, samples)] == [
        0 if asked else 12,
        4,
        7,
    ]
    assert listing(folder) == before
    assert server.seen.total() == sent


@pytest.mark.parametrize(
    ("names", "changes", "requests"),
    [
        (NAMES, {}, [18, 6]),
        (NAMES, {"contrast_pairs": 5, "items": 3, "contrast_texts": 4}, [6, 12]),  # 2 rivals, 2 each
        (["dog"], {}, [6, 0]),
    ],
)
def test_as_many_are_sent_as_were_foretold(
    tmp_path: Path,
    chat_server: Callable[..., Any],
    names: list[str],
    changes: dict[str, Any],
    requests: list[int],
) -> None:
    """Where every text is kept: before anything is asked, between the passes, and at the end."""
    kb = knowledge_base(tmp_path, names)
    server = chat_server(fresh)
    settings = online(server.url, **changes)
    found = foretell(kb, settings)
    assert [each.expected.requests for each in found] == requests
    assert [each.answered for each in found] == [0] * len(found)
    describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    assert server.seen.total() == requests[0]
    between = foretell(kb, settings)
    assert (between[0].answered, between[0].expected.requests, between[0].most_requests) == (
        requests[0],
        0,
        0,
    )
    assert [each.expected.requests for each in between[1:]] == requests[1:]
    assert [each.most_requests for each in between[1:]] == [each.most_requests for each in found[1:]]
    describe_contrasts(kb, settings, run_id="r", encoder=MINILM)
    assert server.seen.total() == sum(requests)
    assert left(foretell(kb, settings)) == [(count, 0, 0) for count in requests]


def test_more_texts_than_a_round_asks_for(
    tmp_path: Path, chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds to come count too, and so do requests that are not full: 13 texts in fours are four each."""
    monkeypatch.setattr(category_texts, "_ROUND_TEXTS", 6)
    kb = knowledge_base(tmp_path, ["dog", "wolf"])
    server = chat_server(fresh)
    settings = online(server.url, n=13, items=4, contrast_pairs=0)
    assert left(foretell(kb, settings)) == [(0, 8, 2 * 20)]
    describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    assert server.seen.total() == 8


def test_the_most_is_where_a_run_gives_up(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """A model that always says the same is asked just as often as was foretold at most."""
    kb = knowledge_base(tmp_path, ["dog", "wolf"])
    server = chat_server(lambda body, nth: reply(f"The {about(body)} has four quick legs."))
    settings = online(server.url, n=5, max_requests_per_text=2.5, contrast_texts=3)
    first, second = foretell(kb, settings)
    assert (first.most_requests, second.most_requests) == (2 * 13, 2 * 8)
    describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    assert server.seen.total() == first.most_requests
    assert left(foretell(kb, settings)) == [(26, 0, 0), (0, 6, 16)]
    describe_contrasts(kb, settings, run_id="r", encoder=MINILM)
    assert server.seen.total() == first.most_requests + second.most_requests
    assert left(foretell(kb, settings)) == [(26, 0, 0), (16, 0, 0)]


def test_after_a_pause_the_rest_is_told(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """Stopped in the middle by a quota: what is left of the categories that are not full is then sent."""
    quota = 11
    sent: list[int] = []

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        if len(sent) >= quota:
            return QUOTA
        sent.append(body["seed"])
        return fresh(body)

    kb = knowledge_base(tmp_path / "it's [50%] done*")
    settings = online(chat_server(script).url)
    with pytest.raises(RunError, match="quota"):
        describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    questions = [json.loads(entry.request)["messages"][-1][1] for entry in list(iter_entries(kb))]
    answers = Counter(name for name in NAMES for question in questions if f'"{name}"' in question)
    kept = answers.total()
    assert 0 < kept < 18
    most = sum(36 - answers[name] for name in NAMES if answers[name] < 6)
    before = listing(kb)
    first, second = foretell(kb, settings)
    assert listing(kb) == before
    assert left([first, second]) == [(kept, 18 - kept, most), (0, 6, 36)]
    quota = 1000
    describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    assert len(sent) == kept + first.expected.requests and len(set(sent)) == len(sent)


def test_what_is_full_or_has_run_dry_is_not_asked_again(
    tmp_path: Path, chat_server: Callable[..., Any]
) -> None:
    """Only the category whose answers are missing counts, by its own rounds and as far as its own limit."""

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        return reply("The dog has four quick legs.") if about(body) == "dog" else fresh(body)

    kb = knowledge_base(tmp_path)
    settings = online(chat_server(script).url, contrast_pairs=0, max_requests_per_text=3.0)
    summary = describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)[0]
    assert summary["saturated"] == {"dog": 1}
    assert left(foretell(kb, settings)) == [(18 + 6 + 6, 0, 0)]
    remove_answers(kb, "wolf", 2)
    assert left(foretell(kb, settings)) == [(18 + 6 + 4, 2, 18 - 4)]
    # The dog has one text of six after its first six requests, so its second round asked twelve times.
    for lost, expected, most in ((1, 1, 1), (11, 12, 12), (6, 6, 18)):
        remove_answers(kb, "dog", lost)
        assert left(foretell(kb, settings)) == [(6 + 4 + 18 - most, 2 + expected, 14 + most)]


def test_contrasts_that_were_stopped(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """Answers against the first rival are missing: those against the second are looked up all the same."""
    kb = knowledge_base(tmp_path)
    server = chat_server(fresh)
    settings = online(server.url, contrast_pairs=2)
    describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    describe_contrasts(kb, settings, run_id="r", encoder=MINILM)
    rivals = [row["aspect"].removeprefix("contrast:") for row in read_rows(kb / PART)]
    assert len(rivals) == 12
    for rival in (rivals[0], rivals[2]):  # the dog's first, the dog's second
        remove_answers(kb, f'People take \\"dog\\" for \\"{rival}\\"', 1)
    (kb / PART).unlink()  # a part is written last: a stopped run has none
    sent = server.seen.total()
    assert left(foretell(kb, settings))[1] == (10, 2, 2 * (12 - 1))
    describe_contrasts(kb, settings, run_id="r", encoder=MINILM)
    assert server.seen.total() == sent + 2


def test_samples_with_their_tries(sensor_kb: Path, chat_server: Callable[..., Any]) -> None:
    """One request each, up to `tries`; after rejected tries only the tries that are left."""
    declines = True

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        return reply("I'm sorry, I cannot help.") if declines and body["seed"] % 2 else fresh(body)

    server = chat_server(script)
    settings = viewer(server.url, tries=4)
    none = online(server.url, contrast_pairs=0)
    assert left(foretell(sensor_kb, none, settings))[1:] == [(0, 7, 28)]
    once = replace(settings, tries=1)
    describe_sample_shards(sensor_kb, sensor_kb.parent / "data", [0], once, run_id="r", encoder=MINILM)
    rows = read_rows(sensor_kb / "descriptions" / "sample")
    rejected = sum(row["status"] == "refusal" for row in rows)
    assert 0 < rejected < 7 == server.seen.total()
    assert left(foretell(sensor_kb, none, settings))[1:] == [(7, rejected, 3 * rejected)]
    declines = False
    describe_sample_shards(sensor_kb, sensor_kb.parent / "data", [0], settings, run_id="r", encoder=MINILM)
    assert server.seen.total() == 7 + rejected
    assert left(foretell(sensor_kb, none, settings))[1:] == [(7 + rejected, 0, 0)]


def test_samples_that_are_given_are_not_asked_about(sensor_kb: Path, chat_server: Callable[..., Any]) -> None:
    """A text of the manifest, and a text sample, need nobody; those whose facts are phrased are measured."""
    given = [{"sample_id": name, "text": "A plain thing."} for name in ("image", "sound")]
    write_table(sensor_kb / "given_descriptions.parquet", given, GIVEN_DESCRIPTIONS)
    server = chat_server(fresh)
    none = online(server.url, contrast_pairs=0)
    for describer in ("openai", "facts+llm"):
        settings = viewer(server.url, describer=describer, llm="openai")
        assert left(foretell(sensor_kb, none, settings))[1:] == [(0, 5, 15)]


@pytest.mark.parametrize("describer", ["facts", "none", "fake"])
def test_who_asks_nobody_adds_no_stage(tmp_path: Path, describer: Any) -> None:
    """Neither samples that are measured or left alone, nor a pass of contrasts that will not be made."""
    kb = knowledge_base(tmp_path)
    fake = DescribeCategories(describer="fake", n=3)
    samples = DescribeSamples(describer=describer)
    found = foretell(kb, fake, samples)
    assert [each.stage.split(" (")[0] for each in found] == [
        "category descriptions",
        "contrasts of confusable categories",
    ]
    assert [each.model for each in found] == ["fake-1", "fake-1"]
    [alone] = foretell(kb, replace(fake, contrast_pairs=0), samples)
    assert alone.expected.requests == 9
    [local] = foretell(kb, replace(fake, describer="local"), samples)
    assert local.stage == "category descriptions" and local.expected.requests == 9


def test_an_image_text_model_of_ones_own(sensor_kb: Path, tmp_path: Path) -> None:
    """`llava` is foretold without its being loaded; nothing is known of its cost."""
    folder = tmp_path / "tiny-llava"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    samples = DescribeSamples(describer="llava", model=str(folder))
    told = foretell(sensor_kb, DescribeCategories(describer="fake", n=1, contrast_pairs=0), samples)[1]
    assert (told.model, told.expected.requests, told.most_requests) == ("tiny-llava", 7, 21)
    assert told.expected.usd is told.most_usd is told.price is None


def bodies_of(kb: Path) -> list[dict[str, Any]]:
    return [json.loads(entry.request) for entry in list(iter_entries(kb))]


@pytest.mark.parametrize("items", [1, 3])
def test_costs_are_those_of_full_answers(tmp_path: Path, chat_server: Callable[..., Any], items: int) -> None:
    """By hand from what is then sent: a fourth of the letters, and every answer at its limit."""
    kb = knowledge_base(tmp_path)
    settings = online(chat_server(fresh).url, items=items, price=PRICE, contrast_pairs=0)
    [told] = foretell(kb, settings)
    [batch] = foretell(kb, replace(settings, submit="batch"))
    [unknown] = foretell(kb, replace(settings, price=None))
    spent = describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)[0]["spent_usd"]
    prompt = answer = 0
    for body in bodies_of(kb):
        letters = sum(len(content) for _, content in body["messages"])
        letters += len(canonical_json(body["extra"])) if body["extra"] else 0
        prompt += round(letters / 4 + 4 * len(body["messages"]))
        answer += body["max_tokens"]
    count = len(bodies_of(kb))
    cost = (2.0 * prompt + 8.0 * answer) / 1e6
    assert told.expected == CostEstimate(count, prompt, answer, pytest.approx(cost))
    assert told.most_usd == pytest.approx(cost * told.most_requests / count)
    assert told.price == PRICE and 0 < spent < cost
    assert batch.expected == replace(told.expected, usd=pytest.approx(0.25 * cost))
    assert batch.most_usd == pytest.approx(0.25 * cost * told.most_requests / count)
    assert unknown.expected == replace(told.expected, usd=None)
    assert unknown.most_usd is unknown.price is None
    for price in (PRICE, None):  # nothing costs nothing, whatever the price
        [done] = foretell(kb, replace(settings, price=price))
        assert (done.answered, done.expected, done.most_usd) == (count, CostEstimate(0, 0, 0, 0.0), 0.0)


def test_pictures_cost_what_the_price_says(sensor_kb: Path, chat_server: Callable[..., Any]) -> None:
    """Their tokens count; where the price does not say how many there are, the cost is not known."""
    server = chat_server(fresh)
    none = online(server.url, contrast_pairs=0)
    words = replace(PRICE, image_tokens=0)
    first, second, third = (
        foretell(sensor_kb, none, viewer(server.url, price=price))[1]
        for price in (PRICE, words, replace(PRICE, image_tokens=None))
    )
    assert first.expected.prompt_tokens == second.expected.prompt_tokens + 7 * 1000
    assert first.expected.usd is not None and second.expected.usd is not None
    assert first.expected.usd == pytest.approx(second.expected.usd + 7 * 1000 * 2.0 / 1e6)
    assert third.expected.usd is third.most_usd is None
    assert "cost unknown: no price for what is sent beside words" in to_text([third])


def test_contrasts_before_the_first_pass_are_of_the_right_size(
    tmp_path: Path, chat_server: Callable[..., Any]
) -> None:
    """Names of one length: what the stand-ins cost is what those are foretold to cost who are confusable."""
    kb = knowledge_base(tmp_path, ["lynx", "oboe", "tuba", "wolf"])
    settings = online(chat_server(fresh).url, items=3, price=PRICE)
    likely = foretell(kb, settings)[1]
    describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    known = foretell(kb, settings)[1]
    assert "not looked up" in likely.stage and "not looked up" not in known.stage
    assert replace(likely, stage=known.stage) == known
    assert known.expected.requests == 4 and known.most_requests == 24


def test_answers_that_are_used_again_are_not_left(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """With `reuse`, a larger max_tokens leaves only what the smaller one has cut off."""

    def script(body: dict[str, Any], nth: int) -> dict[str, Any]:
        if body["max_tokens"] == 40 and body["seed"] % 3 == 0:
            return reply(f"The {about(body)} has a long", finish="length")
        return fresh(body)

    kb = knowledge_base(tmp_path)
    server = chat_server(script)
    short = online(server.url, contrast_pairs=0, max_requests_per_text=1.0)
    summary = describe_category_shards(kb, [0], short, run_id="r", encoder=MINILM)[0]
    cut = summary["rejected"]["unparsed"]
    assert 0 < cut < 18 == server.seen.total()
    longer = replace(short, max_tokens=60)
    assert left(foretell(kb, longer)) == [(0, 18, 18)]
    before = listing(kb)
    assert left(foretell(kb, replace(longer, reuse=True))) == [(18 - cut, cut, cut)]
    assert listing(kb) == before
    describe_category_shards(kb, [0], replace(longer, reuse=True), run_id="r", encoder=MINILM)
    assert server.seen.total() == 18 + cut


def told(usd: float | None, price: Price | None, **changes: Any) -> Forecast:
    expected = CostEstimate(1200, 5600, 4800, usd)
    most = None if usd is None else 6 * usd
    return replace(Forecast("category descriptions", "gpt-x", 34, expected, 720, most, price), **changes)


def test_the_forecast_in_words() -> None:
    """Each stage with its requests, tokens and cost; the sum of what is unknown is unknown."""
    known = told(1.2301, PRICE)
    unbounded = CostEstimate(7, 3210, None, None)
    unknown = told(None, None, stage="sample descriptions", model="own", answered=0, expected=unbounded)
    assert (
        to_text([known, replace(unknown, most_requests=21)])
        == """\
category descriptions (gpt-x)
  34 requests are answered already
  1,200 are left if every text is kept, 720 at most: 5,600 tokens to send (estimated) and at most 4,800 to get
  at most $1.24, and at most $7.39 if as many are rejected as may be
  prices of 2026-01-01
sample descriptions (own)
  0 requests are answered already
  7 are left if every text is kept, 21 at most: 3,210 tokens to send (estimated)
  cost unknown: no price for this model (set `price` in the project file)
in all at most 741 requests, cost unknown"""
    )


@pytest.mark.parametrize(
    ("usd", "most", "total"),
    [
        (0.0, "$0.00", "$0.00"),
        (0.00001, "$0.01", "$0.01"),
        (0.07, "$0.42", "$0.84"),
        (1000.005, "$6,000.03", "$12,000.06"),
    ],
)
def test_an_upper_bound_is_rounded_up(usd: float, most: str, total: str) -> None:
    """In whole cents: what costs something is not told as nothing, and arithmetic adds no cent."""
    words = to_text([told(usd, PRICE)] * 2)
    assert f"and at most {most} if" in words
    assert words.endswith(f"in all at most 1,440 requests, at most {total}")


def test_planning_does_not_wait_for_torch() -> None:
    """`unibind describe` imports this module in every run, also where nothing is left to do."""
    found = "import sys, kb_builder.describe.dry_run; print({'torch', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", found], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_what_cannot_be_foretold_is_said(tmp_path: Path) -> None:
    """Nothing read in, a ledger of another version, and one that is none: one line each, with the remedy."""
    fake = DescribeCategories(describer="fake", n=1)
    with pytest.raises(KnowledgeBaseError, match=f"{re.escape(str(tmp_path))}/categories.parquet is missing"):
        foretell(tmp_path, fake)
    kb = knowledge_base(tmp_path)
    ledger = kb / "ledger.sqlite"
    ledger.touch()  # a run that ended before it made the table
    assert foretell(kb, fake)[0].expected.requests == 3
    for version in (1, 9):
        with closing(sqlite3.connect(ledger)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(KnowledgeBaseError, match="another version of this program"):
            foretell(kb, fake)
    ledger.write_bytes(b"no database at all " * 300)
    with pytest.raises(KnowledgeBaseError, match="restore it from a backup"):
        foretell(kb, fake)
