"""kb_builder.describe.samples where a model is asked: what is sent, what is kept, and nothing asked twice."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from data.errors import RunError
from data.manifest.read import Manifest
from data.sample import Category, Sample
from data.seals import discard
from kb_builder.ask.ledger import iter_entries
from kb_builder.describe.samples import (
    describe_sample_shards,
    sample_shard_count,
)
from kb_builder.describers import local_llm
from kb_builder.encoders.tokens import MINILM, TOKEN_LIMIT
from kb_builder.settings import DescribeSamples, Price
from kb_builder.tables.ingest import ingest
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.findings import Finding
from kb_builder.verify.verify import verify

ASKED = ("drawn", "event", "image", "point", "sound", "thermal", "video")  # all of `sensor_kb` but the text
FINE = "A red half meets a blue half along one straight upright line."
REFUSAL = "I'm sorry, but I can't describe this."
SOUND_FACTS = "A steady sound of 1.0 seconds: loud, dull; clear, one tone, the strongest middle, near 438 Hz."
PRICE = Price(input=1.0, output=2.0, date="2026-01-01")
VOLATILE = frozenset({"created_at", "latency_ms", "attempts"})

Summaries = dict[int, dict[str, Any]]
Rows = list[dict[str, Any]]


@dataclass
class Scribe:
    """A script for `chat_server` that keeps what it was sent. `answer` None: the server's own text."""

    answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda body: None
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, body: dict[str, Any], nth: int) -> dict[str, Any] | None:
        self.bodies.append(body)
        return self.answer(body)


def said(text: str | None, **message: Any) -> dict[str, Any]:
    """A whole answer of these words; `finish_reason` and `refusal` may be set."""
    finish = message.pop("finish_reason", "stop")
    content = {"role": "assistant", "content": text, **message}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return {
        "body": {"model": "m-2", "choices": [{"finish_reason": finish, "message": content}], "usage": usage}
    }


def in_turn(answers: Iterable[dict[str, Any]]) -> Scribe:
    """One answer after the other: for a single sample, whose tries follow one another."""
    left = iter(answers)
    return Scribe(lambda body: next(left))


def asking(server: Any, **changes: Any) -> DescribeSamples:
    """Settings of a vision endpoint; one that breaks down fails a test soon."""
    settings = DescribeSamples(
        describer="openai", model="m", base_url=server.url, request_timeout_s=15.0, outage_s=15.0
    )
    return replace(settings, **changes)


def describe(kb: Path, settings: DescribeSamples, *, replay: bool = False) -> dict[str, Any]:
    """All samples in one shard; returns its summary. Their files lie beside the knowledge base."""
    data = kb.parent / "data"
    return describe_sample_shards(kb, data, [0], settings, run_id="r", encoder=MINILM, replay=replay)[0]


def rows_of(kb: Path) -> Rows:
    return read_rows(kb / "descriptions" / "sample")


def same_always(rows: Rows) -> Rows:
    """Rows without what may differ between two runs."""
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in rows]


def rejects(kb: Path) -> dict[str, str]:
    return {row["sample_id"]: row["reason"] for row in read_rows(kb / "rejects" / "describe-00000.parquet")}


def wrong_in(kb: Path) -> list[Finding]:
    """What `verify` finds, but that nobody has described the categories."""
    return [
        each
        for each in verify(kb).findings
        if (each.what, each.where) != ("not described yet", "categories") and each.what != "no checksums yet"
    ]


def kb_of(folder: Path, *samples: Sample) -> Path:
    """A knowledge base of some of the `sensor_files`, beside their folder."""
    kb = folder.parent / "kb"
    ingest(Manifest(folder, samples, (Category("bell", "brass bell"), Category("ball", "ball"))), kb)
    return kb


@pytest.fixture
def photo_kb(sensor_files: Path) -> Path:
    """A knowledge base of one photo."""
    return kb_of(sensor_files, Sample("image", "image", "photo.png"))


@pytest.fixture
def sound_kb(sensor_files: Path) -> Path:
    """A knowledge base of one sound."""
    return kb_of(sensor_files, Sample("sound", "audio", "tone.flac"))


# --- what is sent --------------------------------------------------------------------------------------

# What the model is told of the picture, and the picture's mean colour: of the photo half red and half blue,
# of the thermal one a quarter white on black, and so on.
LEGENDS = {
    "drawn": ("An event camera recorded this. * Coloured or grey dots are places", (0, 27, 27)),
    "event": ("An event camera recorded this. * Places that grew brighter are red", (190, 130, 192)),
    "image": ("This is a photograph.", (115, 30, 115)),
    "point": (
        "four views of one and the same thing, which was scanned as a cloud of points",
        (160, 160, 160),
    ),
    "sound": ("This is the spectrogram of one sound.", (14, 6, 9)),
    "thermal": ("A thermal camera recorded this: brighter is warmer", (64, 64, 64)),
    "video": ("four moments of one video, evenly spaced, in reading order", (213, 231, 213)),
}


def question_of(body: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The parts that are no text, and the question after them, of a request about a sample."""
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    *media, last = body["messages"][1]["content"]
    assert last["type"] == "text"
    return media, last["text"]


def opened(part: dict[str, Any]) -> Image.Image:
    """The picture of a part, decoded whole."""
    start, data = part["image_url"]["url"].split(",", 1)
    assert start == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    picture.load()
    return picture


@pytest.mark.parametrize("max_side", [768, 200])
def test_each_modality_is_asked_about_with_its_picture_and_its_legend(
    sensor_kb: Path, chat_server: Any, max_side: int
) -> None:
    """One picture each, of that sample and bounded, and words that say how to read it; a text asks nobody."""
    scribe = Scribe()
    summary = describe(sensor_kb, asking(chat_server(scribe), max_side=max_side))
    assert (summary["samples"], summary["requests"], summary["ok"], summary["without_text"]) == (8, 7, 8, 0)
    rows = {row["sample_id"]: row for row in rows_of(sensor_kb)}
    assert sorted(rows) == sorted([*ASKED, "text"])
    text = rows.pop("text")
    assert (text["text"], text["source"]) == ("A brass bell with a wooden handle.", "facts")
    asked = {body["seed"]: body for body in scribe.bodies}
    assert len(asked) == len(scribe.bodies) == 7
    for name, (legend, colour) in LEGENDS.items():
        row = rows[name]
        (part,), question = question_of(asked[row["seed"]])
        picture = opened(part)
        assert max(picture.size) == {768: {"point": 452}.get(name, 448), 200: 200}[max_side]
        assert np.abs(np.asarray(picture).mean(axis=(0, 1)) - colour).max() < 10, name
        assert all(words in question for words in legend.split(" * ")), name
        assert (row["status"], row["source"], row["provider"]) == ("ok", "online", "openai")
        assert row["template_id"].startswith(f"sample_{row['modality']}")
        assert (row["model_requested"], row["max_tokens"], row["temperature"]) == ("m", 80, 0.9)
    assert wrong_in(sensor_kb) == []


def test_native_sound_and_video_are_sent_themselves(sensor_kb: Path, chat_server: Any) -> None:
    """`native` sends the sound and the video whole, and asks to listen or watch; the others stay pictures."""
    scribe = Scribe()
    describe(sensor_kb, asking(chat_server(scribe), native=("audio", "video")))
    seeds = {row["seed"]: row["sample_id"] for row in rows_of(sensor_kb)}
    asked = {seeds[body["seed"]]: question_of(body) for body in scribe.bodies}
    assert sorted(asked) == list(ASKED)
    (sound,), question = asked.pop("sound")
    wave_T, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"])))
    assert (sound["input_audio"]["format"], rate, len(wave_T)) == ("wav", 16_000, 16_000)
    assert np.abs(wave_T - 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).max() < 1e-3
    assert question.startswith("Listen to this recording.") and "spectrogram" not in question
    (video,), question = asked.pop("video")
    start, data = video["video_url"]["url"].split(",", 1)
    assert start == "data:video/mp4;base64"
    assert base64.b64decode(data) == (sensor_kb.parent / "data" / "clip.mp4").read_bytes()
    assert question.startswith("Watch this video.") and "moments of one video" not in question
    for (part,), _ in asked.values():
        assert max(opened(part).size) <= 768
    assert wrong_in(sensor_kb) == []


def test_a_given_description_asks_nobody_unless_it_is_too_long(sensor_files: Path, chat_server: Any) -> None:
    """The manifest's words win; where the encoder cannot read them, the model's stand beside them."""
    kb = kb_of(
        sensor_files,
        Sample("brief", "image", "photo.png", description="Red beside blue."),
        Sample("long", "image", "drawn.png", description="word " * TOKEN_LIMIT),
    )
    server = chat_server(Scribe(lambda body: said(FINE)))
    summary = describe(kb, asking(server))
    assert server.seen.total() == summary["requests"] == 1
    assert (summary["given"], summary["ok"], summary["rejected"]) == (2, 2, {"too_long": 1})
    assert [(row["sample_id"], row["source"], row["status"]) for row in rows_of(kb)] == [
        ("brief", "manifest", "ok"),
        ("long", "manifest", "too_long"),
        ("long", "online", "ok"),
    ]
    assert wrong_in(kb) == []


def test_equal_files_are_asked_about_one_by_one(sensor_files: Path, chat_server: Any) -> None:
    """Two samples of one content are sent the same picture with a seed of their own each."""
    shutil.copy(sensor_files / "photo.png", sensor_files / "copy.png")
    kb = kb_of(sensor_files, Sample("a", "image", "photo.png"), Sample("b", "image", "copy.png"))
    scribe = Scribe()
    describe(kb, asking(chat_server(scribe)))
    one, other = scribe.bodies
    assert one["seed"] != other["seed"]
    assert {**one, "seed": 0} == {**other, "seed": 0}
    assert [row["sample_id"] for row in rows_of(kb)] == ["a", "b"]
    assert wrong_in(kb) == []


# --- what is kept --------------------------------------------------------------------------------------


def long_sentence() -> str:
    """One sentence that does not go round in circles, and that no text encoder reads whole."""
    return "The picture shows " + ", ".join(f"mark{number} of colour{number}" for number in range(90)) + "."


GERMAN = "Ein rotes Feld liegt neben einem blauen Feld, und die Grenze ist gerade und nicht sehr breit."
NOT_KEPT = {  # answer -> status, what the reason says, the text that the row keeps
    "refusal": (said(REFUSAL), "refusal", "says", REFUSAL),
    "refusal field": (said(None, refusal="No."), "refusal", "No.", "No."),
    "content filter": (
        said("A red half", finish_reason="content_filter"),
        "refusal",
        "holds no whole sentence",
        "A red half",
    ),
    "German": (said(GERMAN), "wrong_language", "German", GERMAN),
    "too long": (said(long_sentence()), "too_long", f"the encoder reads {TOKEN_LIMIT}", long_sentence()),
    "cut off": (said("A red", finish_reason="length"), "unparsed", "holds no whole sentence", "A red"),
    "400": (
        {"status": 400, "body": {"error": {"message": "unsafe", "code": "content_policy_violation"}}},
        "failed",
        "status 400: unsafe",
        "",
    ),
}


def test_a_text_that_is_not_kept_has_its_reason_and_another_try(photo_kb: Path, chat_server: Any) -> None:
    """A rejected answer stays with its reason; the next try asks otherwise; the first good text ends it."""
    scribe = in_turn([*(answer for answer, *_ in NOT_KEPT.values()), said(FINE), said("Never asked for.")])
    server = chat_server(scribe)
    summary = describe(photo_kb, asking(server, tries=20))
    assert server.seen.total() == summary["requests"] == len(NOT_KEPT) + 1
    expected = Counter(status for _, status, _, _ in NOT_KEPT.values())
    assert summary["rejected"] == dict(sorted(expected.items()))
    assert (summary["ok"], summary["without_text"]) == (1, 0)
    *rejected, kept = rows_of(photo_kb)
    for (name, (_, status, reason, text)), row in zip(NOT_KEPT.items(), rejected, strict=True):
        assert row["status"] == status, name
        assert reason in row["reason"], name
        assert row["text"] == text, name
    assert (kept["text"], kept["status"], kept["reason"]) == (FINE, "ok", None)
    assert (kept["model_requested"], kept["model_resolved"]) == ("m", "m-2")
    assert len({body["seed"] for body in scribe.bodies}) == len(scribe.bodies)
    questions = [question_of(body)[1] for body in scribe.bodies]
    assert len(set(questions)) == len(set(questions[:3])) == 3  # three prompts, in turn
    assert questions[3:] == questions[:-3]
    assert wrong_in(photo_kb) == []


@pytest.mark.parametrize("tries", [1, 2])
def test_after_the_last_try_a_sample_is_without_text(sensor_kb: Path, chat_server: Any, tries: int) -> None:
    """Never more than `tries` requests a sample; who got no text is counted, and keeps the rejected rows."""
    server = chat_server(Scribe(lambda body: said(REFUSAL)))
    settings = asking(server, tries=tries)
    summary = describe(sensor_kb, settings)
    assert server.seen.total() == summary["requests"] == 7 * tries
    assert (summary["ok"], summary["without_text"]) == (1, 7)  # the text is its own description
    assert summary["rejected"] == {"refusal": 7 * tries}
    per_sample = Counter(row["sample_id"] for row in rows_of(sensor_kb))
    assert per_sample == {**dict.fromkeys(ASKED, tries), "text": 1}
    assert rejects(sensor_kb) == {}
    assert wrong_in(sensor_kb) == []
    again = describe(sensor_kb, replace(settings, tries=3))
    assert again["answered_from_ledger"] == 7 * tries
    assert server.seen.total() == again["requests"] == 21


def test_any_language_is_kept_where_none_is_wanted(photo_kb: Path, chat_server: Any) -> None:
    """With `language` off the German text is the sample's."""
    describe(photo_kb, asking(chat_server(Scribe(lambda body: said(GERMAN))), language=None))
    assert [(row["text"], row["status"]) for row in rows_of(photo_kb)] == [(GERMAN, "ok")]


def test_costs_are_summed_and_saved_costs_too(photo_kb: Path, chat_server: Any) -> None:
    """100 tokens in and 10 out at $1 and $2 a million; the second run saves what the first one spent."""
    settings = asking(chat_server(in_turn([said(REFUSAL), said(FINE)])), price=PRICE)
    first, second = describe(photo_kb, settings), describe(photo_kb, settings)
    assert (first["spent_usd"], first["saved_usd"]) == (pytest.approx(2 * 120e-6), 0.0)
    assert (second["spent_usd"], second["saved_usd"]) == (0.0, pytest.approx(2 * 120e-6))
    assert [row["cost_usd"] for row in rows_of(photo_kb)] == [pytest.approx(120e-6)] * 2


# --- files that cannot be read -------------------------------------------------------------------------


def test_a_file_that_is_gone_is_asked_about_when_it_is_back(sensor_kb: Path, chat_server: Any) -> None:
    """It is turned away by name, nothing is sent or recorded for it, and nothing else waits for it."""
    server = chat_server()
    settings = asking(server)
    photo, aside = sensor_kb.parent / "data" / "photo.png", sensor_kb.parent / "aside.png"
    photo.rename(aside)
    summary = describe(sensor_kb, settings)
    assert (summary["ok"], summary["without_text"], summary["requests"]) == (7, 1, 6)
    assert summary["rejected"] == {"unreadable": 1}
    assert server.seen.total() == len(list(iter_entries(sensor_kb))) == 6
    assert list(rejects(sensor_kb)) == ["image"]
    assert "photo.png: No such file" in rejects(sensor_kb)["image"]
    assert "image" not in {row["sample_id"] for row in rows_of(sensor_kb)}
    assert wrong_in(sensor_kb) == []
    aside.rename(photo)
    summary = describe(sensor_kb, settings)
    assert (summary["ok"], summary["without_text"], summary["rejected"]) == (8, 0, {})
    assert (summary["requests"], summary["answered_from_ledger"]) == (7, 6)
    assert server.seen.total() == len(list(iter_entries(sensor_kb))) == 7
    assert rejects(sensor_kb) == {}
    assert wrong_in(sensor_kb) == []


def test_a_torn_picture_is_asked_about_when_it_is_mended(sensor_files: Path, chat_server: Any) -> None:
    """A file that ends early is not sent; mended and read in again, it is asked about, and it alone."""
    photo = sensor_files / "photo.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    samples = (Sample("image", "image", "photo.png"), Sample("thermal", "thermal", "warm.tif"))
    kb = kb_of(sensor_files, *samples)
    server = chat_server()
    assert describe(kb, asking(server))["rejected"] == {"unreadable": 1}
    assert server.seen.total() == len(list(iter_entries(kb))) == 1
    assert "photo.png" in rejects(kb)["image"]
    photo.write_bytes(whole)
    assert "changed since ingest" in (describe(kb, asking(server)) and rejects(kb)["image"])
    assert server.seen.total() == 1
    kb_of(sensor_files, *samples)
    assert describe(kb, asking(server))["without_text"] == 0
    assert server.seen.total() == len(list(iter_entries(kb))) == 2
    assert rejects(kb) == {}
    assert wrong_in(kb) == []


def test_a_file_lost_between_two_tries(photo_kb: Path, chat_server: Any) -> None:
    """What was answered stays with its reason, and the file is told; back again, the next try is asked."""
    photo = photo_kb.parent / "data" / "photo.png"
    content = photo.read_bytes()

    def lose(body: dict[str, Any]) -> dict[str, Any]:
        photo.unlink()
        return said(REFUSAL)

    scribe = Scribe(lose)
    server = chat_server(scribe)
    summary = describe(photo_kb, asking(server))
    assert (summary["without_text"], summary["rejected"]) == (1, {"refusal": 1, "unreadable": 1})
    assert "No such file" in rejects(photo_kb)["image"]
    photo.write_bytes(content)
    scribe.answer = lambda body: said(FINE)
    assert describe(photo_kb, asking(server))["answered_from_ledger"] == 1
    assert [row["status"] for row in rows_of(photo_kb)] == ["refusal", "ok"]
    assert server.seen.total() == len(server.seen) == 2
    assert wrong_in(photo_kb) == []


# --- interrupted, resumed, replayed --------------------------------------------------------------------


def sometimes_refused(body: dict[str, Any]) -> dict[str, Any]:
    """Half of all requests are refused; a text names its seed, so no two are alike."""
    seed = body["seed"]
    return said(REFUSAL if seed % 2 else f"The picture shows a plain thing with {seed} small dots on it.")


@dataclass
class Stopping:
    """A script that answers so many requests and takes no key from then on."""

    most: int
    answered: list[int] = field(default_factory=list)

    def __call__(self, body: dict[str, Any], nth: int) -> dict[str, Any]:
        if len(self.answered) >= self.most:
            return {"status": 401}
        self.answered.append(body["seed"])
        return sometimes_refused(body)


@pytest.mark.parametrize("stops", [[1, 4], [6]])
def test_interrupted_it_goes_on_and_asks_nothing_twice(
    sensor_kb: Path, chat_server: Any, stops: list[int]
) -> None:
    """Stopped in the middle of the tries, it ends with the rows and requests of an undisturbed run."""
    script = Stopping(most=1000)
    settings = asking(chat_server(script), concurrency=2, price=PRICE)
    calm = sensor_kb.parent / "calm"
    shutil.copytree(sensor_kb, calm)
    whole = describe(calm, settings)
    assert whole["rejected"]["refusal"] > 2
    expected, script.answered = sorted(script.answered), []
    for most in stops:
        script.most = most
        with pytest.raises(RunError, match="API key"):
            describe(sensor_kb, settings)
        assert len(list(iter_entries(sensor_kb))) == len(script.answered) >= most
    known, script.most = len(script.answered), 1000
    summary = describe(sensor_kb, settings)
    spent, saved = summary["spent_usd"], summary["saved_usd"]
    assert saved == pytest.approx(known * 120e-6)
    assert summary["answered_from_ledger"] == known
    assert {**summary, "answered_from_ledger": 0, "saved_usd": 0.0, "spent_usd": spent + saved} == {
        **whole,
        "spent_usd": pytest.approx(whole["spent_usd"]),
    }
    assert sorted(script.answered) == expected
    assert len(set(expected)) == len(expected)
    assert same_always(rows_of(sensor_kb)) == same_always(rows_of(calm))
    assert wrong_in(sensor_kb) == []


def test_replay_gives_the_same_rows_and_sends_nothing(sensor_kb: Path, chat_server: Any) -> None:
    """From the ledger alone, without one media file: rows and rejects are the same to the last column."""
    server = chat_server(Scribe(sometimes_refused))
    data = sensor_kb.parent / "data"
    (data / "clip.mp4").unlink()
    first = describe(sensor_kb, asking(server, price=PRICE))
    before, turned_away, sent = rows_of(sensor_kb), rejects(sensor_kb), server.seen.total()
    assert list(turned_away) == ["video"]
    shutil.rmtree(sensor_kb / "descriptions")
    for path in data.iterdir():
        if path.suffix != ".txt":  # the text is its own description, and is read
            path.unlink()
    again = describe(sensor_kb, asking(server, price=PRICE), replay=True)
    assert rows_of(sensor_kb) == before
    assert rejects(sensor_kb) == turned_away
    assert server.seen.total() == sent
    assert again == {
        **first,
        "answered_from_ledger": first["requests"],
        "spent_usd": 0.0,
        "saved_usd": first["spent_usd"],
    }
    assert wrong_in(sensor_kb) == []


def test_replay_ends_where_the_answers_end(sensor_kb: Path, chat_server: Any) -> None:
    """Of an interrupted run, replay gives the rows that were answered; the next run asks for the rest."""
    script = Stopping(most=3)
    server = chat_server(script)
    settings = asking(server, concurrency=1)
    with pytest.raises(RunError):
        describe(sensor_kb, settings)
    sent = server.seen.total()
    summary = describe(sensor_kb, settings, replay=True)
    assert server.seen.total() == sent
    assert summary["requests"] == 3
    rows = rows_of(sensor_kb)
    assert sorted(row["seed"] for row in rows if row["source"] == "online") == sorted(script.answered)
    assert summary["without_text"] == 8 - sum(row["status"] == "ok" for row in rows) > 0
    assert rejects(sensor_kb) == {}
    script.most = 1000
    describe(sensor_kb, settings)
    assert len(set(script.answered)) == len(script.answered) == len(list(iter_entries(sensor_kb)))


def test_replay_measures_no_more_than_was_given_up(sound_kb: Path, chat_server: Any) -> None:
    """The measured sentence stands in after the last try, not where the next one was never answered."""
    script = in_turn([said(REFUSAL), {"status": 401}, *[said(REFUSAL)] * 2])
    settings = phrasing(chat_server(script))
    with pytest.raises(RunError):
        describe(sound_kb, settings)
    assert describe(sound_kb, settings, replay=True)["without_text"] == 1
    assert [row["source"] for row in rows_of(sound_kb)] == ["online"]
    describe(sound_kb, settings)
    assert describe(sound_kb, settings, replay=True)["without_text"] == 0
    assert [row["source"] for row in rows_of(sound_kb)] == ["facts", "online", "online", "online"]


def test_shards_are_the_whole(sensor_kb: Path, chat_server: Any) -> None:
    """Shards of three hold together what one shard holds; one alone asks for its own samples only."""
    server = chat_server(Scribe(sometimes_refused))
    whole = describe(sensor_kb, asking(server))
    rows, sent = rows_of(sensor_kb), server.seen.total()
    by_three = asking(server, shard_samples=3)
    assert sample_shard_count(sensor_kb, by_three) == 3
    shutil.rmtree(sensor_kb / "descriptions")
    (sensor_kb / "ledger.sqlite").unlink()
    discard(sensor_kb)  # else the lost ledger is noticed
    server.seen.clear()
    data = sensor_kb.parent / "data"
    summary = describe_sample_shards(sensor_kb, data, [1], by_three, run_id="r", encoder=MINILM)[1]
    assert {row["sample_id"] for row in rows_of(sensor_kb)} == {"point", "sound", "text"}
    assert server.seen.total() == summary["requests"] < sent
    done: Summaries = {}
    describe_sample_shards(
        sensor_kb, data, [0, 1, 2], by_three, run_id="r", on_shard=done.__setitem__, encoder=MINILM
    )
    assert sorted(done) == [0, 1, 2]
    for name in ("samples", "requests", "ok", "without_text"):
        assert sum(each[name] for each in done.values()) == whole[name]
    assert done[1]["answered_from_ledger"] == done[1]["requests"]
    assert same_always(rows_of(sensor_kb)) == same_always(rows)
    assert set(server.seen.values()) == {1} and server.seen.total() == sent
    assert wrong_in(sensor_kb) == []


# --- facts+llm -----------------------------------------------------------------------------------------


def measured_in(body: dict[str, Any]) -> str:
    """The measured sentence that a request holds."""
    (system, user) = body["messages"]
    assert "You put measurements into plain English" in system["content"]
    before, _, rest = user["content"].partition("Measured of one recording: ")
    facts, _, ask = rest.partition("\n\n")
    assert before == "" and ask
    return str(facts)


def first_clause(body: dict[str, Any]) -> dict[str, Any]:
    """A true text: the start of the measured sentence."""
    return said(measured_in(body).split(";")[0].rstrip(".") + ".")


def phrasing(server: Any, **changes: Any) -> DescribeSamples:
    return asking(server, describer="facts+llm", llm="openai", **changes)


def test_facts_are_sent_in_words_and_without_a_picture(sensor_kb: Path, chat_server: Any) -> None:
    """Each sample's own measured sentence is put to the model, and nothing else of the sample."""
    scribe = Scribe(first_clause)
    summary = describe(sensor_kb, phrasing(chat_server(scribe)))
    assert (summary["requests"], summary["ok"], summary["rejected"]) == (7, 8, {})
    asked = {body["seed"]: body for body in scribe.bodies}
    rows = {row["sample_id"]: row for row in rows_of(sensor_kb)}
    assert rows.pop("text")["source"] == "facts"
    facts_kb = sensor_kb.parent / "facts"
    shutil.copytree(sensor_kb, facts_kb)
    describe(facts_kb, DescribeSamples())
    measured = {row["sample_id"]: row["text"] for row in rows_of(facts_kb)}
    assert measured["sound"] == SOUND_FACTS
    for name, row in rows.items():
        assert measured_in(asked[row["seed"]]) == measured[name]
        assert (row["source"], row["template_id"]) == ("online", "sample_facts-plain")
    assert wrong_in(sensor_kb) == []


UNTRUE = {  # text -> status, reason
    "A loud, bright sound with one clear tone near 438 Hz.": ("unfaithful", "says 'bright'"),
    "A loud, dull sound with one clear tone near 440 Hz.": ("unfaithful", "the figure 440"),
    "A brass bell sounds, loud and dull, with one clear tone.": ("other_name", "names 'brass bell'"),
    "Two balls make a loud, dull sound.": ("other_name", "names 'balls'"),
    "Something goes on and on without end.": ("unfaithful", "keeps no measured word"),
    REFUSAL: ("refusal", "says"),
}


def test_a_text_that_leaves_the_facts_is_rejected(sound_kb: Path, chat_server: Any) -> None:
    """Other qualities, other figures and names of categories are told apart; a true text ends the tries."""
    true = "One clear, dull tone near 438 Hz sounds steady and loud for 1 second."
    server = chat_server(in_turn([*map(said, UNTRUE), said(true), said("Never asked for.")]))
    summary = describe(sound_kb, phrasing(server, tries=20))
    assert server.seen.total() == len(UNTRUE) + 1
    assert summary["rejected"] == {"other_name": 2, "refusal": 1, "unfaithful": 3}
    *rejected, kept = rows_of(sound_kb)
    for row, (text, (status, reason)) in zip(rejected, UNTRUE.items(), strict=True):
        assert (row["text"], row["status"]) == (text, status)
        assert reason in row["reason"]
    assert (kept["text"], kept["status"], kept["source"]) == (true, "ok", "online")
    assert wrong_in(sound_kb) == []


def test_after_all_tries_the_measured_sentence_stands_in(sound_kb: Path, chat_server: Any) -> None:
    """The sample is not without text: its facts are a row of their own beside the rejected ones."""
    server = chat_server(in_turn(map(said, list(UNTRUE)[:3])))
    summary = describe(sound_kb, phrasing(server))
    assert (summary["requests"], summary["ok"], summary["without_text"]) == (3, 1, 0)
    assert summary["rejected"] == {"other_name": 1, "unfaithful": 2}
    rows = rows_of(sound_kb)
    assert [(row["source"], row["status"]) for row in rows] == [
        ("facts", "ok"),
        ("online", "unfaithful"),
        ("online", "unfaithful"),
        ("online", "other_name"),
    ]
    assert rows[0]["text"] == SOUND_FACTS
    assert wrong_in(sound_kb) == []
    assert describe(sound_kb, phrasing(server), replay=True)["answered_from_ledger"] == 3
    assert rows_of(sound_kb) == rows


def test_a_file_that_cannot_be_measured_is_turned_away(sensor_kb: Path, chat_server: Any) -> None:
    """It asks nobody, and stands in rejects with its reason; the others are phrased."""
    (sensor_kb.parent / "data" / "tone.flac").write_bytes(b"fLaC and no more")
    server = chat_server(Scribe(first_clause))
    summary = describe(sensor_kb, phrasing(server))
    assert (summary["ok"], summary["rejected"]) == (7, {"unreadable": 1})
    assert server.seen.total() == 6
    assert list(rejects(sensor_kb)) == ["sound"] and "tone.flac" in rejects(sensor_kb)["sound"]
    assert wrong_in(sensor_kb) == []


@pytest.mark.skipif(local_llm.model_file() is None, reason="the bundled LLM is not installed")
def test_the_bundled_llm_phrases_facts(sound_kb: Path) -> None:
    """The default `llm` is asked for real, with the short prompts that small models follow."""
    summary = describe(sound_kb, DescribeSamples(describer="facts+llm", max_tokens=48))
    rows = rows_of(sound_kb)
    asked = [row for row in rows if row["source"] == "local"]
    assert len(asked) == summary["requests"] >= 1
    assert {row["template_id"].rpartition("-")[0] for row in asked} == {"sample_facts_openings"}
    requests = [json.loads(entry.request) for entry in list(iter_entries(sound_kb))]
    assert all(request["extra"] == {"min_p": 0.2} for request in requests)
    assert all(SOUND_FACTS in request["messages"][1][1] for request in requests)
    assert {row["model_requested"] for row in asked} == {local_llm.MODEL}
    assert (summary["ok"], summary["without_text"]) == (1, 0)  # its words, or the measured ones
    assert wrong_in(sound_kb) == []


# --- llava ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest LLaVA of test_llava.py, with random weights. Tests are no package: it is found by path."""
    import torch

    spec = importlib.util.spec_from_file_location(
        "tiny_llava", Path(__file__).parents[1] / "describers" / "test_llava.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    torch.manual_seed(0)
    module.save_llava(folder)
    return folder


def test_llava_describes_samples_in_process(sensor_kb: Path, tiny_llava: Path) -> None:
    """Every picture is put to the model of that folder; rows say who wrote them; nothing is asked twice."""
    (sensor_kb.parent / "data" / "ball.npy").unlink()
    settings = DescribeSamples(
        describer="llava", model=str(tiny_llava), device="cpu", batch_size=4, max_tokens=8, tries=2
    )
    summary = describe(sensor_kb, settings)
    rows = rows_of(sensor_kb)
    asked = [row for row in rows if row["source"] == "local"]
    assert {row["sample_id"] for row in asked} == set(ASKED) - {"point"}
    assert list(rejects(sensor_kb)) == ["point"]
    for row in asked:
        assert (row["provider"], row["model_requested"], row["model_resolved"]) == (
            "llava",
            "tiny-llava",
            "tiny-llava",
        )
        assert row["prompt_tokens"] > 16 and 1 <= row["completion_tokens"] <= 8
    keys = {entry.key: json.loads(entry.request) for entry in list(iter_entries(sensor_kb))}
    assert keys.keys() == {row["request_key"] for row in asked}
    assert all(request["endpoint"].startswith("llava:tiny-llava@") for request in keys.values())
    assert summary["requests"] == len(keys)
    assert wrong_in(sensor_kb) == []
    again = describe(sensor_kb, settings)
    assert again["answered_from_ledger"] == again["requests"] == len(keys)
    assert rows_of(sensor_kb) == rows
