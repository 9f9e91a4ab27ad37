"""A small chat-completions server on loopback: deterministic answers, scripted faults, a request count."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from data.files import hash_json
from kb_builder.fake import fake_answer

KEY = "sk-planted-0123456789"

Fault = dict[str, Any]  # status, body, headers, hang (seconds)


class ChatServer:
    """`script(body, nth)` names the fault of the nth request of that body (from 1), or None for an answer."""

    def __init__(self, script: Callable[[dict[str, Any], int], Fault | None], delay: float) -> None:
        self.script = script
        self.delay = delay
        self.seen: Counter[int] = Counter()  # by seed: every request has its own
        self.answered: Counter[int] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.guard = threading.Lock()
        self.url = ""

    def reply(self, raw: bytes, authorization: str) -> tuple[int, dict[str, str], bytes]:
        body = json.loads(raw)
        seed = body["seed"]
        with self.guard:
            self.seen[seed] += 1
            nth = self.seen[seed]
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            time.sleep(self.delay)
            if authorization != f"Bearer {KEY}":
                message = f"Incorrect API key provided: {authorization.removeprefix('Bearer ')}"
                return (
                    401,
                    {},
                    json.dumps({"error": {"message": message, "code": "invalid_api_key"}}).encode(),
                )
            fault = self.script(body, nth)
            if fault is None:
                messages = tuple((m["role"], m["content"]) for m in body["messages"])
                answer = json.dumps(fake_answer(messages, hash_json(body), model=body["model"])).encode()
                with self.guard:
                    self.answered[seed] += 1
                return 200, {}, answer
            time.sleep(fault.get("hang", 0.0))
            content = fault.get("body", {"error": {"message": "scripted"}})
            text = content if isinstance(content, str) else json.dumps(content)
            return fault.get("status", 200), fault.get("headers", {}), text.encode()
        finally:
            with self.guard:
                self.in_flight -= 1


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ChatServer]]:
    """Start servers on free loopback ports; they run until the test ends. OPENAI_API_KEY is right."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ExitStack() as servers:
        yield lambda script=lambda body, nth: None, delay=0.0: servers.enter_context(_serve(script, delay))


@contextmanager
def _serve(script: Callable[[dict[str, Any], int], Fault | None], delay: float) -> Iterator[ChatServer]:
    chat = ChatServer(script, delay)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            status, headers, payload = chat.reply(raw, self.headers.get("authorization", ""))
            try:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client was killed or has given up

        def log_message(self, format: str, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            return  # a client that was killed in the middle of a request

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
