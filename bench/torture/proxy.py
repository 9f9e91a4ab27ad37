"""A proxy between the builder and the server, which damages what comes back; nothing wrong may become `ok`.

The proxy keeps the server's true answers. A text counts as right if a true answer contains it, up to white
space. Damage that replaces letters by other letters is left out:
no reader can detect it, and TLS prevents it.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet as pq
from aiohttp import web

from bench.torture.ground import RUN, Ground, make_project
from bench.torture.trial import Trial

SHARE = 0.35  # share of the answers that are damaged
_ASKING = "request_timeout_s = 4\noutage_s = 45\nmax_answer_mb = 1\n"
_SIGNS = ("\x1b[31m", "\x00", "\x07", "\x85", "\x9b", "\u202e", "\u2066", "\ufffd", "\u200b")

Blow = Callable[[random.Random, bytes, str], bytes]  # (body, content of its first choice) -> body


@dataclass
class Proxy:
    """The damaged answers, and the true ones."""

    rng: random.Random
    upstream: str
    url: str = ""
    blows: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)


def _high_bit(rng: random.Random, body: bytes, content: str) -> bytes:
    """Set a letter's highest bit, so that the body is not UTF-8."""
    at = body.find(content[:20].encode()) if content else -1
    at = max(at, 0) + rng.randrange(20)
    return body[:at] + bytes([body[at] ^ 0x80]) + body[at + 1 :] if at < len(body) else body


def _any_high_bit(rng: random.Random, body: bytes, content: str) -> bytes:
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 0x80]) + body[at + 1 :]


def _inject(rng: random.Random, body: bytes, content: str) -> bytes:
    """Insert a control character into the text, escaped or raw."""
    return _with_content(rng, body, lambda text, at: text[:at] + rng.choice(_SIGNS) + text[at:])


def _half_sign(rng: random.Random, body: bytes, content: str) -> bytes:
    """Insert half of a surrogate pair, as a JSON escape."""
    whole = _with_content(rng, body, lambda text, at: text[:at] + "QQQQ" + text[at:])
    return whole.replace(b"QQQQ", b"\\ud83d")


def _with_content(rng: random.Random, body: bytes, change: Callable[[str, int], str]) -> bytes:
    value = json.loads(body)
    with suppress(LookupError, TypeError):
        message = value["choices"][0]["message"]
        text = message["content"]
        message["content"] = change(text, rng.randrange(len(text)))
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()


def _cut(rng: random.Random, body: bytes, content: str) -> bytes:
    return body[: rng.randrange(len(body))]


def _swap(rng: random.Random, body: bytes, content: str) -> bytes:
    """Swap two parts of the body, as by a broken cache."""
    at = rng.randrange(1, len(body))
    return body[at:] + body[:at]


def _twice(rng: random.Random, body: bytes, content: str) -> bytes:
    """Send the whole body twice."""
    return body + body


def _garbage(rng: random.Random, body: bytes, content: str) -> bytes:
    return rng.randbytes(rng.randrange(1, 400))


def _mark(rng: random.Random, body: bytes, content: str) -> bytes:
    return b"\xef\xbb\xbf" + body.replace(b"{", b"{\x00", 1)


_BODIES: dict[str, Blow] = {
    "a letter's highest bit": _high_bit,
    "any byte's highest bit": _any_high_bit,
    "a control character or U+FFFD in the text": _inject,
    "half a surrogate in the text": _half_sign,
    "cut short": _cut,
    "beginning and end exchanged": _swap,
    "sent twice": _twice,
    "random bytes": _garbage,
    "a mark and a NUL": _mark,
}
_WIRE: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "a length that is too great": lambda rng, body: _head(len(body) + rng.randint(1, 999)) + body,
    "a length that is too small": lambda rng, body: _head(rng.randrange(len(body))) + body,
    "two lengths": lambda rng, body: _head(len(body), f"content-length: {len(body) // 2}\r\n") + body,
    "garbage for headers": lambda rng, body: b"HTTP/1.1 200 OK\r\n" + rng.randbytes(80) + b"\r\n\r\n" + body,
    "no HTTP": lambda rng, body: rng.randbytes(rng.randint(1, 200)),
    "a chunk of no size": lambda rng, body: (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        b"zz\r\n" + body + b"\r\n0\r\n\r\n"
    ),
    "not gzip": lambda rng, body: _head(len(body), "content-encoding: gzip\r\n") + body,
    "two answers in a row": lambda rng, body: _head(len(body)) + body + _head(7) + b'{"a":1}',
}
_ENDLESS = ("an endless body", "silence")


def _head(length: int, more: str = "") -> bytes:
    lines = ["HTTP/1.1 200 OK", "content-type: application/json", f"{more}content-length: {length}", "", ""]
    return "\r\n".join(lines).encode()


async def _forward(proxy: Proxy, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
    sent = await request.read()
    async with session.post(
        f"{proxy.upstream}{request.path.removeprefix('/v1')}",
        data=sent,
        headers={"content-type": "application/json"},
    ) as answer:
        body, status = await answer.read(), answer.status
    content = ""
    if status == 200:
        for choice in json.loads(body)["choices"]:
            content = choice["message"].get("content") or ""
            proxy.said.append(content)
    rng = proxy.rng
    if status != 200 or rng.random() > SHARE:
        return web.Response(body=body, status=status, content_type="application/json")
    name = rng.choice((*_BODIES, *_WIRE, *_ENDLESS))
    proxy.blows[name] += 1
    if name in _BODIES:
        return web.Response(body=_BODIES[name](rng, body, content), content_type="application/json")
    transport = request.transport
    if transport is None:
        return web.Response()
    if name in _WIRE:
        transport.write(_WIRE[name](rng, body))
    else:
        with suppress(asyncio.CancelledError, OSError):
            if name == "an endless body":
                transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + body[:-1])
            while not transport.is_closing():
                if name == "an endless body":
                    transport.write(b" " * 65536)
                await asyncio.sleep(0.05)
    transport.close()
    return web.Response()


@contextmanager
def proxied(upstream: str, rng: random.Random) -> Iterator[Proxy]:
    """Run the proxy in a thread, in front of a base URL."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    proxy = Proxy(rng, upstream)

    async def serve() -> None:
        async with aiohttp.ClientSession() as session:
            app = web.Application()

            async def handle(request: web.Request) -> web.StreamResponse:
                return await _forward(proxy, session, request)

            app.router.add_post("/v1/chat/completions", handle)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            ready.set()
            await stop.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    if not ready.wait(30):
        raise RuntimeError("the proxy did not start")
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def corrupting_proxy(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Describe through the proxy repeatedly; a trial is one damaged answer."""
    number = 0
    while True:
        number += 1
        with proxied(ground.server.url, random.Random(rng.random())) as proxy:
            folder = ground.root / "proxied" / str(number)
            make_project(folder, proxy.url)
            file = folder / "unibind.toml"
            text = file.read_text(encoding="utf-8").replace("n = 4\n", f"n = 20\n{_ASKING}seed = {number}\n")
            file.write_text(text, encoding="utf-8")
            done = ground.run(folder, "describe")
            wrong = wrong_texts(folder / RUN, proxy.said)
            trials = [Trial(f"answer damaged: {name}") for name in proxy.blows.elements()]
            problems = [f"stored as ok: {text!r}" for text in wrong]
            if problem := done.problem():
                problems.append(problem)
            yield from trials[len(problems) :]
            yield from (Trial(f"through the proxy, seed {number}", problem) for problem in problems)


def wrong_texts(run: Path, said: list[str]) -> list[str]:
    """The texts with status `ok` that no true answer contains."""
    everything = "\n".join(_plain(each) for each in said)
    return [
        row["text"]
        for path in sorted((run / "kb" / "descriptions" / "category").glob("*.parquet"))
        for row in _rows(path)
        if row["status"] == "ok" and _plain(row["text"]).rstrip(".") not in everything
    ]


def _rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path, columns=["text", "status"]).to_pylist()


def _plain(text: str) -> str:
    return " ".join(text.replace("\\n", " ").split()).casefold()
