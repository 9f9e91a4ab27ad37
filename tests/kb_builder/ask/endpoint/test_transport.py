"""What reaches a client: bounded, from the address that was named, and through no proxy on loopback."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from data.errors import DescriberError, RunError, TransientError
from kb_builder.ask.endpoint.bodies import decoded, origin
from kb_builder.ask.request import Request
from kb_builder.describers.choose import openai_client

REQUEST = Request(
    endpoint="e",
    model="m",
    messages=(("user", "Describe the dog."),),
    temperature=None,
    top_p=None,
    max_tokens=40,
    seed=7,
    sample_index=0,
)
ANSWER = {"choices": [{"message": {"content": "A dog with a näse."}, "finish_reason": "stop"}]}
BODY = json.dumps(ANSWER, ensure_ascii=False).encode()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def ask(handler: Handler, *, path: str = "/v1", most_bytes: int = 100_000) -> str:
    """The body of one answer by a client of its own, from a server that handles everything so."""

    async def run() -> str:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        client = openai_client(model="m", base_url=url, api_key_env="UNIBIND_NONE", most_bytes=most_bytes)
        try:
            async with asyncio.timeout(10):
                return (await client.answer(REQUEST)).body
        finally:
            await client.close()
            await runner.cleanup()

    return asyncio.run(run())


def answering(body: bytes, **headers: str) -> Handler:
    """Status 200 with this body and these headers."""

    async def handle(request: web.Request) -> web.StreamResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, headers={"content-type": "application/json", **sent})

    return handle


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY, {}),
        (b"\xef\xbb\xbf" + BODY, {}),
        (BODY, {"content_type": "application/json; charset=hex"}),
        (BODY, {"content_type": "application/json; charset=utf-7"}),
        (BODY, {"content_type": "text/plain; charset=\"no such\""}),
        (BODY.decode().encode("utf-16"), {}),
        (BODY.decode().encode("latin-1"), {"content_type": "text/json; charset=Latin-1"}),
        (gzip.compress(BODY, mtime=0), {"content_encoding": "gzip"}),
        (zlib.compress(BODY), {"content_encoding": "deflate"}),
    ],
)  # fmt: skip
def test_an_answer_is_read_whatever_it_is_wrapped_in(body: bytes, headers: dict[str, str]) -> None:
    """A charset in the header is a stranger's word: JSON says by itself what it is written in."""
    assert json.loads(ask(answering(body, **headers))) == ANSWER


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (BODY + b" " * 200_000, {}, r"more than 0\.1 MB \(`max_answer_mb`\)"),
        (gzip.compress(BODY + b" " * 5_000_000, mtime=0), {"content_encoding": "gzip"}, "more than 0.1 MB"),
        (gzip.compress(BODY, mtime=0)[:-12], {"content_encoding": "gzip"}, "ends early"),
        (b"no gzip", {"content_encoding": "gzip"}, "cannot be unpacked"),
        (BODY, {"content_encoding": "br"}, "packed by 'br'"),
        (BODY.replace(b"dog", b"d\xffg"), {}, "no text in UTF-8"),
        (b"[" * 50_000 + b"]" * 50_000, {}, "nested without end"),
        (b'{"choices": ' + b"[" * 40_000, {}, "not JSON|nested without end"),
        (b'{"choices": ' + b"9" * 5_000 + b"}", {}, "not JSON"),
    ],
)
def test_what_is_beyond_bounds_is_one_line(body: bytes, headers: dict[str, str], words: str) -> None:
    """Too long, unpacking without end, torn, nested, no text: worth another try, and may have been paid
    for."""
    with pytest.raises(TransientError, match=words) as caught:
        ask(answering(body, **headers))
    assert caught.value.maybe_paid
    assert len(str(caught.value)) < 500


def test_headers_without_end_are_not_read() -> None:
    """The client gives up long before a deadline would end it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\n")
        while not request.transport.is_closing():
            request.transport.write(b"x-more: " + b"m" * 1000 + b"\r\n")
            await asyncio.sleep(0)
        return web.Response()

    with pytest.raises(TransientError):
        ask(handle)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_other_address_is_sent_anything(status: int) -> None:
    """A redirect to another host, port or scheme is refused, and says where it leads, without its query."""
    asked: list[str] = []

    async def away(request: web.Request) -> web.StreamResponse:
        asked.append(request.host)
        target = f"http://localhost:{request.url.port}/v1/chat/completions?sig=PLANTED"
        return web.Response(status=status, headers={"location": target})

    with pytest.raises(RunError, match=r"another address, http://localhost:\d+; .*`base_url`") as caught:
        ask(away)
    assert "PLANTED" not in str(caught.value)
    assert len(asked) == 1


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_on_the_same_address_is_followed(status: int) -> None:
    """As a slash at the end needs on some servers; the request arrives whole."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/"):
            return web.Response(status=status, headers={"location": f"{request.path}/"})
        assert (await request.json())["seed"] == 7
        return web.json_response(ANSWER)

    assert json.loads(ask(handle)) == ANSWER


def test_a_redirect_that_loses_the_request_is_told() -> None:
    """A POST that becomes a GET asks nothing; one that goes in circles ends."""

    async def moved(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"location": "/v2/chat/completions"})

    with pytest.raises(RunError, match=r"redirects.*to the path /v2/chat/completions"):
        ask(moved)

    async def circle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"location": request.path})

    with pytest.raises(DescriberError):
        ask(circle)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_loopback_is_asked_through_no_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Whatever the environment says, and though NO_PROXY says nothing."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert json.loads(ask(answering(BODY))) == ANSWER


def test_an_error_says_which_proxy_it_came_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that refuses is named: what it says is no answer of the endpoint."""

    async def run() -> str:
        async def refuse(request: web.Request) -> web.StreamResponse:
            return web.Response(status=403, text="<html>Access Denied</html>")

        server = web.AppRunner(web.Application(), access_log=None)
        server.app.router.add_route("*", "/{rest:.*}", refuse)
        await server.setup()
        await web.TCPSite(server, "127.0.0.1", 0).start()
        port = server.addresses[0][1]
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        client = openai_client(model="m", base_url="http://llm.example/v1", api_key_env="UNIBIND_NONE")
        try:
            await client.answer(REQUEST)
        except DescriberError as error:
            return f"{port} {error}"
        finally:
            await client.close()
            await server.cleanup()
        return ""

    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    port, _, said = asyncio.run(run()).partition(" ")
    assert f"through the proxy http://127.0.0.1:{port} (http_proxy)" in said and "Access Denied" in said


def test_a_proxy_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKS is spoken by none of the packages below."""
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks5://user:planted@127.0.0.1:1080")
    client = openai_client(model="m", base_url="http://llm.example/v1", api_key_env="UNIBIND_NONE")
    with pytest.raises(RunError, match=r"socks5://127\.0\.0\.1:1080 \(ALL_PROXY\)") as caught:
        asyncio.run(client.answer(REQUEST))
    assert "planted" not in str(caught.value)


def test_origins_and_charsets() -> None:
    """Default ports are ports; an error's body is read as well as it can be."""
    assert origin("https://A.example/v1") == origin("https://a.example:443/v2")
    assert origin("http://a.example") != origin("https://a.example")
    assert decoded(b"d\xffg", "text/plain", strict=False) == "d\ufffdg"


def test_strange_statuses_are_told_apart() -> None:
    """101 and 600 are worth another try, 501 is a refusal: none is a traceback."""
    kinds: dict[int, Any] = {}
    for status in (204, 501, 600):

        async def handle(request: web.Request, status: int = status) -> web.StreamResponse:
            return web.Response(status=status, text="" if status == 204 else "no")

        with pytest.raises(DescriberError) as caught:
            ask(handle)
        kinds[status] = type(caught.value).__name__
    assert kinds == {204: "TransientError", 501: "RequestError", 600: "TransientError"}


def test_too_many_open_files_are_not_the_answers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that came and cannot be read for want of a file handle is not asked, and paid for, again."""

    def starved(*arguments: object, **named: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("kb_builder.ask.endpoint.bodies.decoded", starved)

    with pytest.raises(RunError, match=r"Too many open files on this machine; raise the limit"):
        ask(answering(BODY))
