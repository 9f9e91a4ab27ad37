"""The client: every way a server can fail, told apart once."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from data.errors import DescriberError, RequestError, RunError, ThrottledError, TransientError
from kb_builder.ask.endpoint.client import chat_url
from kb_builder.ask.endpoint.direct import sent_headers
from kb_builder.ask.endpoint.status import check_body, error_for, retry_after
from kb_builder.ask.ledger import open_ledger
from kb_builder.ask.request import Limits, Request, endpoint_identity
from kb_builder.ask.scheduler import open_asker
from kb_builder.describers.choose import openai_client
from kb_builder.settings import Asking

REQUEST = Request(
    endpoint="e",
    model="m",
    messages=(("user", 'Describe "dog".'),),
    temperature=0.5,
    top_p=None,
    max_tokens=40,
    seed=7,
    sample_index=0,
    extra={"stop": ["\n"], "min_p": 0.1},
)


def ask(url: str, request: Request = REQUEST) -> str:
    """One answer through a client of its own."""

    async def run() -> str:
        client = openai_client(model="m", base_url=url, api_key_env="OPENAI_API_KEY")
        try:
            return (await client.answer(request)).body
        finally:
            await client.close()

    return asyncio.run(run())


def test_an_answer_comes_back_as_it_was_sent(chat_server: Callable[..., Any]) -> None:
    """The body is the server's own, and the server received the final request: no more, no less."""
    sent: list[dict[str, Any]] = []
    server = chat_server(lambda body, nth: sent.append(body))
    answer = json.loads(ask(server.url))
    assert answer["choices"][0]["message"]["content"].startswith("The dog has")
    assert sent == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": 'Describe "dog".'}],
            "temperature": 0.5,
            "max_tokens": 40,
            "seed": 7,
            "stop": ["\n"],
            "min_p": 0.1,
        }
    ]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"status": 400}, RequestError, "status 400: scripted"),
        ({"status": 413}, RequestError, "413"),
        ({"status": 422}, RequestError, "422"),
        ({"status": 400, "body": {"error": {"code": "model_not_found"}}}, RunError, "`model`"),
        ({"status": 401}, RunError, "api_key_env"),
        ({"status": 402}, RunError, "402"),
        ({"status": 403}, RunError, "rights"),
        ({"status": 404, "body": "<html>Not Found</html>"}, RunError, "base_url"),
        ({"status": 405}, RunError, "405"),
        ({"status": 408}, TransientError, "408"),
        ({"status": 409}, TransientError, "409"),
        ({"status": 425}, TransientError, "425"),
        ({"status": 429}, ThrottledError, "429"),
        ({"status": 429, "body": {"error": {"code": "insufficient_quota"}}}, RunError, "quota"),
        ({"status": 500}, TransientError, "500"),
        ({"status": 503, "body": "upstream is down"}, TransientError, "upstream is down"),
        ({"body": '{"choices": [{"mess'}, TransientError, "not JSON"),
        ({"body": "<html>log in</html>"}, TransientError, "log in"),
        ({"body": []}, TransientError, "not a JSON object"),
        ({"body": {"error": {"message": "overloaded"}}}, TransientError, "overloaded"),
        ({"body": {"error": {"message": "bad", "code": 400}}}, RequestError, "bad"),
        ({"body": {"error": {"message": "poor", "code": "insufficient_quota"}}}, RunError, "poor"),
        ({"body": {"choices": []}}, TransientError, "no choices"),
        ({"body": {"choices": None}}, TransientError, "no choices"),
        ({"body": {"choices": [{"index": 0}]}}, TransientError, "no message"),
    ],
)
def test_each_fault_has_its_class(
    chat_server: Callable[..., Any], fault: dict[str, Any], kind: type[DescriberError], words: str
) -> None:
    """Statuses and bodies map to the four classes, with a message that names the server and what it said."""
    server = chat_server(lambda body, nth: fault)
    with pytest.raises(DescriberError, match=words) as caught:
        ask(server.url)
    assert type(caught.value) is kind
    assert server.url in str(caught.value)
    assert server.seen.total() == 1  # the vendor's client tries nothing again by itself


def test_the_vendors_client_is_imported_only_where_it_is_needed(chat_server: Callable[..., Any]) -> None:
    """It takes longer to import than a small run does to answer."""
    server = chat_server()
    code = (
        "import asyncio, sys\n"
        "from kb_builder.ask.request import Request\n"
        "from kb_builder.describers.choose import openai_client\n"
        f"client = openai_client(model='m', base_url={server.url!r}, api_key_env='OPENAI_API_KEY')\n"
        "request = Request('e', 'm', (('user', 'x'),), None, None, 9, 1, 0)\n"
        "async def ask():\n"
        "    await client.answer(request)\n"
        "    await client.close()\n"
        "asyncio.run(ask())\n"
        "assert 'openai' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_request_says_whose_account_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The organisation and the project of OpenAI's own variables are sent, with the key."""
    assert sent_headers("sk")["Authorization"] == "Bearer sk"
    assert "OpenAI-Organization" not in sent_headers("sk")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    headers = sent_headers("sk")
    assert (headers["OpenAI-Organization"], headers["OpenAI-Project"]) == ("org-1", "proj-1")


@pytest.mark.parametrize(
    ("base_url", "whole"),
    [
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("https://h/v1/?sig=a%2Fb", "https://h/v1/chat/completions?sig=a%2Fb"),
        ("https://h", "https://h/chat/completions"),
    ],
)
def test_requests_go_below_the_base_url(base_url: str, whole: str) -> None:
    """Its query stays."""
    assert chat_url(base_url) == whole


def test_a_closed_port_is_transient() -> None:
    """Nobody listening may be a server that is starting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(TransientError, match=r"127\.0\.0\.1.*Cannot connect") as caught:
            ask(url)
    assert not caught.value.maybe_paid


def test_answers_that_broke_off_may_have_been_paid_for(chat_server: Callable[..., Any]) -> None:
    """A torn answer of status 200 cost something, a 500 did not."""
    for fault, paid in (({"body": '{"choices": [{"mess'}, True), ({"status": 500}, False)):
        server = chat_server(lambda body, nth, fault=fault: fault)
        with pytest.raises(TransientError) as caught:
            ask(server.url)
        assert caught.value.maybe_paid is paid


def test_a_429_tells_the_limits(chat_server: Callable[..., Any]) -> None:
    """The headers of a throttled answer say as much as those of an answer."""
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0", "retry-after": "3"}
    server = chat_server(lambda body, nth: {"status": 429, "headers": headers})
    with pytest.raises(ThrottledError) as caught:
        ask(server.url)
    assert caught.value.retry_after == 3.0
    assert caught.value.limits == Limits(requests=60, requests_left=0)


def test_a_wrong_key_stops_the_run_and_is_shown_nowhere(
    chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server quotes the key back; neither the message, nor its causes, nor the log repeats it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-user")
    with pytest.raises(RunError, match="Incorrect API key provided: ") as caught:
        ask(chat_server().url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in f"{error!r} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "secret" not in caplog.text


def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is told before anything is sent, by the variable's name."""
    monkeypatch.delenv("MY_KEY", raising=False)
    client = openai_client(model="m", base_url=None, api_key_env="MY_KEY")
    with pytest.raises(RunError, match="set the environment variable MY_KEY"):
        asyncio.run(client.answer(REQUEST))


def test_a_model_must_be_named() -> None:
    """There is no default that could be paid for by mistake."""
    with pytest.raises(RunError, match="needs `model`"):
        openai_client(model=None, base_url=None, api_key_env="K")


def test_retry_after_in_each_form() -> None:
    """Seconds, milliseconds, a date; what cannot be read is no wish."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    dated = retry_after({"retry-after": soon})
    assert dated is not None and 80 < dated <= 90
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize("hours", [-400 * 24, -1, 1, 400 * 24])
def test_a_date_to_retry_after_counts_from_the_servers_clock(hours: int) -> None:
    """A clock here that is hours off makes no wait longer or shorter; a date that cannot be read is none."""
    there = datetime.now(UTC) + timedelta(hours=hours)
    wish = format_datetime(there + timedelta(seconds=90), usegmt=True)
    assert retry_after({"retry-after": wish, "date": format_datetime(there, usegmt=True)}) == 90.0
    if hours == 1:
        for date in ("", "soon", "Mon, 30 Nov 2026 08:00:00 -0000"):
            unaided = retry_after({"retry-after": wish, "date": date})
            assert unaided is not None and 3600 < unaided <= 3690


def test_throttling_carries_the_servers_wish(chat_server: Callable[..., Any]) -> None:
    """The header reaches the error."""
    server = chat_server(lambda body, nth: {"status": 429, "headers": {"retry-after": "7"}})
    with pytest.raises(ThrottledError) as caught:
        ask(server.url)
    assert caught.value.retry_after == 7.0


def test_identities_hold_no_secret() -> None:
    """User info and query may hold keys; a trailing slash is no other endpoint."""
    assert endpoint_identity("https://user:pw@Host.org:8443/v1/?key=s") == "https://host.org:8443/v1"
    assert endpoint_identity("https://api.openai.com/v1") == "https://api.openai.com/v1"


def test_bodies_that_are_answers_pass() -> None:
    """A refusal or an empty text is an answer: the gates judge it, nobody asks again."""
    check_body('{"choices": [{"message": {"content": null, "refusal": "no"}}], "error": null}', where="x")
    assert isinstance(error_for(418, "x"), RunError)


def test_a_key_is_hidden_however_it_is_written(chat_server: Callable[..., Any]) -> None:
    """Some servers quote it back in capitals."""
    key = os.environ["OPENAI_API_KEY"]
    server = chat_server(
        lambda body, nth: {"status": 400, "body": {"error": {"message": f"No {key.upper()}"}}}
    )
    with pytest.raises(RequestError) as caught:
        ask(server.url)
    assert key not in str(caught.value).lower()
    assert "No ***" in str(caught.value)


def test_the_query_of_an_address_is_not_told(chat_server: Callable[..., Any]) -> None:
    """It may hold a signature; the error names the endpoint without it."""
    server = chat_server(lambda body, nth: {"status": 400})
    with pytest.raises(RequestError) as caught:
        ask(f"{server.url}?sig=SECRET")
    assert "SECRET" not in str(caught.value)
    assert server.url in str(caught.value)


def test_a_key_that_is_not_set_is_named(
    chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 401 to a request without a key says which variable holds none."""
    server = chat_server()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RunError, match="OPENAI_API_KEY is not set: no key was sent"):
        ask(server.url)


@pytest.mark.parametrize("end", ["", "\n", " "])
def test_a_key_may_end_in_a_line_break(
    chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """As a key does that was read from a file."""
    server = chat_server()
    monkeypatch.setenv("OPENAI_API_KEY", os.environ["OPENAI_API_KEY"] + end)
    assert ask(server.url)


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-schlüssel"])
def test_what_can_be_no_key_is_told_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """One line that names the variable."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(RunError, match="the value of OPENAI_API_KEY is not an API key") as caught:
        ask("http://127.0.0.1:9/v1")
    assert "sk-" not in str(caught.value)


def test_the_key_is_in_no_file_of_the_knowledge_base(chat_server: Callable[..., Any], tmp_path: Path) -> None:
    """A server that quotes it in every form, in refusals and in answers: no eight characters of it are
    kept."""
    key = os.environ["OPENAI_API_KEY"]
    forms = [
        key,
        key.upper(),
        json.dumps(key),
        base64.b64encode(f"Bearer {key}".encode()).decode(),
        "".join(f"\\u{ord(letter):04x}" for letter in key),
        quote(key, safe=""),
        f"{key[:12]}****{key[-4:]}",
        f"...{key[-9:]}",
    ]

    def script(body: dict[str, Any], nth: int) -> dict[str, Any] | None:
        said = " and ".join(forms)
        if body["seed"] % 3 == 0:
            return {"status": 400, "body": {"error": {"message": said[:290], "code": "content_policy"}}}
        if body["seed"] % 3 == 1:
            text = f"The dog is {said}."
            choice = {"message": {"content": text}, "finish_reason": "stop"}
            return {"body": {"model": key, "choices": [choice]}}
        return None

    server = chat_server(script)

    async def run() -> None:
        client = openai_client(model="m", base_url=server.url, api_key_env="OPENAI_API_KEY")
        requests = [replace(REQUEST, seed=seed, sample_index=seed) for seed in range(12)]
        async with (
            open_ledger(tmp_path) as ledger,
            open_asker(client, ledger, settings=Asking(concurrency=2), run_id="r") as asker,
        ):
            entries = await asker.ask(requests)
            assert sum(entry is not None and entry.error is not None for entry in entries) == 4
        await client.close()

    asyncio.run(run())
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).lower()
    assert b"the dog is ***" in kept
    for secret in (key.lower(), "".join(f"\\u{ord(letter):04x}" for letter in key).lower()):
        assert not any(secret[at : at + 8].encode() in kept for at in range(len(secret) - 7) if at != 0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "99999999999"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
        ({"retry-after": "Mon, 99 Foo 2026 99:99:99 GMT"}, None),
        ({"retry-after-ms": "inf", "retry-after": "2"}, 2.0),
        ({"retry-after": "86400"}, 86400.0),
    ],
)
def test_a_retry_after_beyond_sense_is_no_wish(headers: dict[str, str], seconds: float | None) -> None:
    """Infinity, no number, thousands of years: the usual pauses hold then."""
    assert retry_after(headers) == seconds
