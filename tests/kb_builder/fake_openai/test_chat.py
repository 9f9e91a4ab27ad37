"""The fake's chat completions, asked through the `openai` package, or aiohttp where that hides too much."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import openai
import pytest
from PIL import Image

from data.errors import ThrottledError, TransientError
from kb_builder.ask.endpoint.status import retry_after
from kb_builder.ask.request import Request, read_limits
from kb_builder.describers.choose import openai_client
from kb_builder.fake_openai import PASSING, FakeSettings, all_faults, serve_fake
from kb_builder.parse.answers import read_answer

USER = [{"role": "user", "content": 'Write one sentence about "wooden sphere".'}]
ITEMS = {
    "type": "json_schema",
    "json_schema": {
        "name": "descriptions",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "descriptions": {"type": "array", "items": {"type": "string"}, "minItems": 5, "maxItems": 5}
            },
            "required": ["descriptions"],
            "additionalProperties": False,
        },
    },
}

Talk = Callable[[openai.AsyncOpenAI], Awaitable[Any]]


def talk_to(settings: FakeSettings, talk: Talk, *, key: str = "sk-any", log: Path | None = None) -> Any:
    """What `talk` gives, with a client of a server that lives as long."""

    async def run() -> Any:
        async with (
            serve_fake(settings, log=log) as url,
            openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client,
        ):
            return await talk(client)

    return asyncio.run(run())


def ask(settings: FakeSettings, **fields: Any) -> Any:
    """One chat completion."""
    return talk_to(
        settings, lambda client: client.chat.completions.create(**{"model": "m", "messages": USER} | fields)
    )


def texts(settings: FakeSettings, count: int, **fields: Any) -> list[str | None]:
    """The contents of answers to requests that differ in their seed."""

    async def talk(client: openai.AsyncOpenAI) -> list[str | None]:
        answers = [
            await client.chat.completions.create(
                **{"model": "m", "messages": USER, "seed": seed} | fields  # type: ignore[arg-type]
            )
            for seed in range(count)
        ]
        return [answer.choices[0].message.content for answer in answers]

    return talk_to(settings, talk)


async def stats(client: openai.AsyncOpenAI) -> dict[str, Any]:
    """The server's counters."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(str(client.base_url.join("/_fake/stats"))) as answer,
    ):
        return dict(await answer.json())


def test_an_answer_is_a_sentence_about_the_subject() -> None:
    """The first quoted thing is named; model, finish_reason and usage are there."""
    answer = ask(FakeSettings())
    assert "wooden sphere" in answer.choices[0].message.content
    assert (answer.model, answer.choices[0].finish_reason) == ("m", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 10


def test_an_answer_depends_on_the_request_alone() -> None:
    """Same body, same bytes, in another life of the server too; another seed, body or server seed differs."""
    one = ask(FakeSettings(), seed=1)
    assert ask(FakeSettings(latency_s=0.001, rpm=60), seed=1) == one
    assert ask(FakeSettings(), seed=2).choices[0].message != one.choices[0].message
    assert ask(FakeSettings(seed=9), seed=1).choices[0].message != one.choices[0].message


def test_a_structured_answer_is_valid_against_its_schema() -> None:
    """An object with an array of so many strings, each about the subject."""
    content = ask(FakeSettings(), response_format=ITEMS).choices[0].message.content
    value = json.loads(content)
    jsonschema.validate(value, ITEMS["json_schema"]["schema"])  # type: ignore[index]
    assert len(set(value["descriptions"])) == 5
    assert all("wooden sphere" in text for text in value["descriptions"])


def test_strict_schemas_are_checked_as_openai_checks_them() -> None:
    """An open object is refused with 400."""
    loose = {
        "name": "x",
        "strict": True,
        "schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
    with pytest.raises(openai.BadRequestError, match="additionalProperties"):
        ask(FakeSettings(), response_format={"type": "json_schema", "json_schema": loose})


def test_several_choices_differ() -> None:
    """`n` choices come, each with a text of its own."""
    choices = ask(FakeSettings(), n=3).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert len({choice.message.content for choice in choices}) == 3


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_text(name: str) -> None:
    """The text ends inside, and finish_reason says so."""
    whole = ask(FakeSettings()).choices[0].message.content
    choice = ask(FakeSettings(), **{name: 5}).choices[0]
    assert choice.finish_reason == "length"
    assert len(choice.message.content) == 20 < len(whole)


def test_stop_strings_end_the_text() -> None:
    """What comes from the stop string on is left out."""
    whole = ask(FakeSettings(), stop=["\n"]).choices[0].message.content
    assert ask(FakeSettings(), stop=" ").choices[0].message.content.count(" ") == 0 < whole.count(" ")


def test_an_opening_is_gone_on_from() -> None:
    """After a last message of the assistant the answer is the rest of its sentence, its article fitting."""
    opening = "The wooden sphere has an"
    content = (
        ask(FakeSettings(), messages=[*USER, {"role": "assistant", "content": opening}])
        .choices[0]
        .message.content
    )
    assert content.startswith(" ") and content.endswith(".")
    assert content[1] in "aeiou"


def picture(form: str = "PNG") -> str:
    """A small picture as a data URL."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(file, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def with_part(part: dict[str, Any]) -> Any:
    """The answer to a text and one more part."""
    content = [{"type": "text", "text": 'What is heard or seen of the "bell"?'}, part]
    return ask(FakeSettings(), messages=[{"role": "user", "content": content}])


def test_pictures_sound_and_video_are_taken() -> None:
    """Whole media are answered, about the subject of the text beside them, and cost tokens."""
    wav = base64.b64encode(b"RIFF\x24\0\0\0WAVEfmt ").decode()
    clip = base64.b64encode(b"\0\0\0\x18ftypmp42").decode()
    for part in (
        {"type": "image_url", "image_url": {"url": picture(), "detail": "low"}},
        {"type": "image_url", "image_url": {"url": picture("JPEG")}},
        {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{clip}"}},
    ):
        answer = with_part(part)
        assert "bell" in answer.choices[0].message.content
        assert answer.usage.prompt_tokens > 8


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": picture()[:-9]}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,bm8gcGljdHVyZQ=="}},
        {"type": "image_url", "image_url": {"url": "data:image/png,raw"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,???"}},
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/picture.png"}},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url"},
        {"type": "input_audio", "input_audio": {"data": "bm8gc291bmQ=", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "flac"}},
        {"type": "video_url", "video_url": {"url": picture()}},
        {"type": "smell", "smell": {}},
    ],
)
def test_broken_media_are_refused(part: dict[str, Any]) -> None:
    """What a real server cannot read is a 400 that names its place."""
    with pytest.raises(openai.BadRequestError, match="400") as caught:
        with_part(part)
    assert caught.value.param == "messages[0].content[1]"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "oracle", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"temperature": 3},
        {"max_tokens": 0},
        {"n": 0},
        {"stream": True},
        {"response_format": {"type": "xml"}},
        {"model": ""},
    ],
)
def test_wrong_requests_are_refused(fields: dict[str, Any]) -> None:
    """What OpenAI refuses with 400 is refused."""
    with pytest.raises(openai.BadRequestError):
        ask(FakeSettings(), **fields)


def test_only_named_models_are_there() -> None:
    """They are listed; any other is 404 model_not_found."""
    settings = FakeSettings(models=("a", "b"))

    async def names(client: openai.AsyncOpenAI) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert talk_to(settings, names) == ["a", "b"]
    assert ask(settings, model="b").model == "b"
    with pytest.raises(openai.NotFoundError) as caught:
        ask(settings, model="c")
    assert caught.value.code == "model_not_found"


def test_a_wrong_key_is_quoted_back() -> None:
    """Real servers do so, and it must not leak from there; the right key is let in."""
    settings = FakeSettings(api_key="sk-right")
    assert "sk-right" not in repr(settings)
    with pytest.raises(openai.AuthenticationError, match="sk-wrong"):
        talk_to(settings, lambda client: client.models.list(), key="sk-wrong")
    with pytest.raises(openai.AuthenticationError, match="sk-wrong"):
        talk_to(settings, lambda client: client.batches.list(), key="sk-wrong")
    talk_to(settings, lambda client: client.chat.completions.create(model="m", messages=USER), key="sk-right")


def raw(settings: FakeSettings) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of one answer; network errors pass."""

    async def run() -> tuple[int, dict[str, str], bytes]:
        async with (
            serve_fake(settings) as url,
            aiohttp.ClientSession() as session,
            session.post(f"{url}/chat/completions", json={"model": "m", "messages": USER}) as answer,
        ):
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, headers, await answer.read()

    return asyncio.run(run())


def only(name: str, **others: Any) -> FakeSettings:
    """Nothing but this fault."""
    return FakeSettings(faults={name: 1.0}, **others)


@pytest.mark.parametrize("name", ["408", "500", "502", "503", "529"])
def test_a_status_is_what_its_name_says(name: str) -> None:
    """The status comes with an error body, which a gateway's 502 writes in HTML."""
    status, _, body = raw(only(name))
    assert status == int(name)
    assert body.startswith(b"<html>") if name == "502" else json.loads(body)["error"]["message"]


@pytest.mark.parametrize("name", ["throttle", "throttle_seconds", "throttle_ms", "throttle_date"])
def test_throttling_says_how_long_in_each_form(name: str) -> None:
    """429 with the header that the name says; our own client reads each of them."""
    status, headers, body = raw(only(name, retry_after_s=90.0))
    assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
    wait = retry_after(headers)
    assert wait is None if name == "throttle" else wait is not None and 85 < wait <= 91
    assert ("retry-after-ms" in headers) == (name == "throttle_ms")


def test_a_hang_ends_when_the_client_leaves() -> None:
    """The server answers nothing, and forgets the request once its client is gone."""

    async def talk(client: openai.AsyncOpenAI) -> dict[str, Any]:
        asked = asyncio.create_task(client.chat.completions.create(model="m", messages=USER))  # type: ignore[arg-type]
        while not (await stats(client))["in_flight"]:
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        while (seen := await stats(client))["in_flight"]:
            await asyncio.sleep(0.01)
        return seen

    seen = talk_to(only("hang"), talk)
    assert (seen["faults"], seen["answers"]) == ({"hang": 1}, 0)


def test_a_hang_can_end_in_a_cut() -> None:
    """With `hang_s` the connection is closed after so many seconds."""
    with pytest.raises(aiohttp.ServerDisconnectedError):
        raw(only("hang", hang_s=0.01))


def test_a_connection_cut_before_the_headers() -> None:
    """The client sees its server leave."""
    with pytest.raises(aiohttp.ServerDisconnectedError):
        raw(only("disconnect"))


def test_a_connection_cut_in_the_body() -> None:
    """The headers promise more than comes."""
    with pytest.raises(aiohttp.ClientPayloadError):
        raw(only("disconnect_body"))


def test_a_wrong_length_tears_the_body() -> None:
    """The client takes what was announced, or sees that what follows is no answer to anything."""
    with pytest.raises((ValueError, aiohttp.ClientError)):
        json.loads(raw(only("wrong_length"))[2])


@pytest.mark.parametrize("name", ["torn_json", "empty_body", "html"])
def test_a_200_that_is_no_json(name: str) -> None:
    """Status 200 with half an answer, nothing, or a page."""
    status, _, body = raw(only(name))
    assert status == 200
    with pytest.raises(ValueError):
        json.loads(body)


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("error_body", lambda value: value["error"]["message"] and "choices" not in value),
        ("no_choices", lambda value: value["choices"] == []),
        ("no_message", lambda value: "message" not in value["choices"][0]),
    ],
)
def test_a_200_that_is_no_answer(name: str, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Status 200 and JSON, but nothing to read in it."""
    status, _, body = raw(only(name))
    assert status == 200
    assert holds(json.loads(body))


def test_every_passing_fault_was_tested() -> None:
    """A new fault must come with its test in this file."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{name}"' in source for name in PASSING)


@pytest.mark.parametrize("name", PASSING)
def test_our_client_calls_every_passing_fault_one_worth_another_try(name: str) -> None:
    """No error of the network or the vendor reaches the scheduler unwrapped."""
    request = Request(
        endpoint="e",
        model="m",
        messages=(("user", 'About "bell".'),),
        temperature=None,
        top_p=None,
        max_tokens=None,
        seed=1,
        sample_index=0,
    )

    async def run() -> None:
        async with serve_fake(only(name, hang_s=0.01)) as url:
            client = openai_client(model="m", base_url=url, api_key_env="NO_SUCH_VARIABLE")
            try:
                with pytest.raises((TransientError, ThrottledError)):
                    await client.answer(request)
            finally:
                await client.close()

    asyncio.run(run())


def test_a_passing_fault_passes() -> None:
    """Asked again, a request meets another draw, so each one is answered in the end; the text is the same."""

    async def talk(client: openai.AsyncOpenAI) -> list[int]:
        tries = []
        for seed in range(40):
            for attempt in range(1, 100):
                try:
                    await client.chat.completions.create(model="m", messages=USER, seed=seed)  # type: ignore[arg-type]
                except openai.InternalServerError:
                    continue
                tries.append(attempt)
                break
        return tries

    settings = FakeSettings(faults={"500": 0.5})
    tries = talk_to(settings, talk)
    assert len(tries) == 40 and 1 in tries and max(tries) > 2
    assert talk_to(settings, talk) == tries  # scripted: the same in every life of the server


def test_lasting_faults_stay() -> None:
    """A request that is refused is refused each time, another one is not."""

    async def talk(client: openai.AsyncOpenAI) -> list[str]:
        said = []
        for seed in [*range(20), *range(20)]:
            try:
                await client.chat.completions.create(model="m", messages=USER, seed=seed)  # type: ignore[arg-type]
                said.append("ok")
            except openai.BadRequestError as error:
                said.append(str(error.code))
        return said

    said = talk_to(FakeSettings(faults={"policy": 0.4}), talk)
    assert said[:20] == said[20:]
    assert set(said) == {"ok", "content_policy_violation"}


@pytest.mark.parametrize(
    ("name", "finish"),
    [
        ("refusal", "stop"),
        ("refusal_field", "refusal"),
        ("content_filter", "content_filter"),
        ("length", "length"),
        ("torn_content", "stop"),
    ],
)
def test_lasting_faults_are_what_their_names_say(name: str, finish: str) -> None:
    """Our own reader of answers sees the finish_reason; the text declines, is missing or is torn."""
    answer = ask(only(name), response_format=ITEMS)
    read = read_answer(answer.model_dump_json())
    assert read.finish_reason == finish
    if name == "refusal_field":
        assert read.text is None
        return
    assert read.text
    with pytest.raises(ValueError):
        json.loads(read.text)


def test_duplicates_come_when_asked_for() -> None:
    """At a rate of one the texts about a subject are few, and some differ from another by one word."""
    said = texts(FakeSettings(duplicate_rate=1.0), 60)
    assert 8 < len(set(said)) <= 16
    assert len({text.removesuffix(" too.").removesuffix(".") for text in said if text}) <= 8


def test_rate_limits_are_counted_and_told() -> None:
    """So many requests pass, with headers that count down; the next one is told how long to wait."""

    async def talk(client: openai.AsyncOpenAI) -> tuple[Any, Any]:
        for _ in range(3):
            answer = await client.chat.completions.with_raw_response.create(model="m", messages=USER)  # type: ignore[arg-type]
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m", messages=USER)  # type: ignore[arg-type]
        return answer.headers, caught.value

    headers, error = talk_to(FakeSettings(rpm=3, tpm=10_000), talk)
    limits = read_limits(headers)
    assert limits is not None and (limits.requests, limits.requests_left, limits.tokens) == (3, 0, 10_000)
    assert limits.tokens_left is not None and 9_000 < limits.tokens_left < 10_000
    assert limits.reset_requests_s is not None and 50 < limits.reset_requests_s <= 60
    wait = retry_after(error.response.headers)
    assert wait is not None and 10 < wait <= 20
    assert read_limits(error.response.headers) is not None


def test_tokens_are_limited_too() -> None:
    """A request is charged for the most that it may use."""
    with pytest.raises(openai.RateLimitError, match="tokens per min"):
        ask(FakeSettings(tpm=1_000), max_tokens=1_000)


def test_too_many_at_once_are_sent_away() -> None:
    """Beyond the cap the answer is 429, and the counters know the most there were."""

    async def talk(client: openai.AsyncOpenAI) -> tuple[list[Any], dict[str, Any]]:
        calls = [client.chat.completions.create(model="m", messages=USER, seed=n) for n in range(5)]  # type: ignore[arg-type]
        return await asyncio.gather(*calls, return_exceptions=True), await stats(client)

    said, seen = talk_to(FakeSettings(max_in_flight=2, latency_s=0.3), talk)
    assert sum(isinstance(one, openai.RateLimitError) for one in said) == 3
    assert (seen["answers"], seen["faults"]) == (2, {"too_many_concurrent_requests": 3})


def test_a_quota_ends() -> None:
    """After so many requests nothing is answered until the account is mended."""

    async def talk(client: openai.AsyncOpenAI) -> None:
        await client.chat.completions.create(model="m", messages=USER)  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(model="m", messages=USER)  # type: ignore[arg-type]
            assert caught.value.code == "insufficient_quota"

    talk_to(FakeSettings(quota_requests=1), talk)


def test_a_server_that_starts_slowly_or_is_out() -> None:
    """Until it is up it says 503 or hangs up, in an outage it says 503."""
    for settings in (FakeSettings(slow_start_s=60), FakeSettings(outages=((0.0, 60.0),))):
        assert raw(settings)[0] == 503
    with pytest.raises(aiohttp.ServerDisconnectedError):
        raw(FakeSettings(slow_start_s=60, slow_start="disconnect"))
    assert raw(FakeSettings(outages=((60.0, 61.0),)))[0] == 200


def test_the_counters_know_what_was_asked_again(tmp_path: Path) -> None:
    """By the hash of the request; the log has a line for each answer and lasts; a reset forgets."""
    log = tmp_path / "answers.log"

    async def talk(client: openai.AsyncOpenAI) -> tuple[dict[str, Any], dict[str, Any]]:
        for seed in (1, 2, 2):
            await client.chat.completions.create(model="m", messages=USER, seed=seed, response_format=ITEMS)  # type: ignore[arg-type,call-overload]
        before = await stats(client)
        async with aiohttp.ClientSession() as session:
            await session.post(str(client.base_url.join("/_fake/reset")))
        return before, await stats(client)

    before, after = talk_to(FakeSettings(), talk, log=log)
    assert (before["requests"], before["answers"], before["items"], before["distinct"]) == (3, 3, 15, 2)
    (key,) = before["asked_again"]
    assert before["answered_again"] == {key: 2}
    assert before["answered_histogram"] == {"1": 1, "2": 1}
    assert before["first_request_s"] < before["last_answer_s"]
    assert (after["requests"], after["last_answer_s"]) == (0, None)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3 and lines.count(f"{key} 200") == 2
    talk_to(FakeSettings(), lambda client: client.chat.completions.create(model="m", messages=USER), log=log)
    assert len(log.read_text(encoding="utf-8").splitlines()) == 4


def test_a_storm_of_all_faults_ends_in_answers() -> None:
    """Every fault comes up, no request is answered twice, and the server survives it all.

    A hang ends by itself: a client that left after a moment would leave late answers of a busy machine too.
    """

    async def talk(client: openai.AsyncOpenAI) -> dict[str, Any]:
        async def insist(seed: int) -> None:
            while True:
                try:
                    answer = await client.chat.completions.with_raw_response.create(
                        model="m",
                        messages=USER,  # type: ignore[arg-type]
                        seed=seed,
                        timeout=600,
                    )
                    if json.loads(answer.http_response.text)["choices"][0]["message"]["content"]:
                        return
                except (openai.OpenAIError, ValueError, LookupError):
                    continue

        await asyncio.gather(*(insist(seed) for seed in range(150)))
        return await stats(client)

    seen = talk_to(FakeSettings(faults=all_faults(0.5), hang_s=0.1), talk)
    assert set(seen["faults"]) == set(PASSING)
    assert (seen["answers"], seen["answered_again"]) == (150, {})
