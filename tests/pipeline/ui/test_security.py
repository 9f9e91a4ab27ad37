"""The guard in front of the pages: hosts, origins, paths, tokens, bodies, and the policy of every answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pipeline.loopback import is_loopback
from pipeline.ui.security import COOKIE, MOST_BODY, Guard, sign_in_page
from pipeline.ui.state import Desk

Served = Callable[..., None]


def _policy(answer: httpx.Response) -> dict[str, str]:
    rules = answer.headers["content-security-policy"].split("; ")
    return {name: value for name, _, value in (rule.partition(" ") for rule in rules)}


def test_a_page_may_run_only_the_server_s_own_scripts(desk: Desk, served: Served) -> None:
    """Every script tag has the page's nonce, the policy has no 'unsafe-inline', and no address is foreign."""

    async def steps(client: httpx.AsyncClient) -> None:
        first, second = [await client.get("/samples") for _ in range(2)]
        rules = _policy(first)
        nonce = re.search(r"'nonce-([\w-]+)'", rules["script-src"])
        assert nonce is not None and "unsafe-inline" not in rules["script-src"]
        tags = re.findall(r"<script\b[^>]*>", first.text)
        ours = [tag for tag in tags if 'src="/ui.js"' in tag]
        assert len(ours) == 1 and len(tags) > 5
        assert all(f'nonce="{nonce[1]}"' in tag for tag in tags if tag not in ours)
        assert nonce[1] not in second.text
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", first.text)
        assert rules["default-src"] == "'self'" and rules["object-src"] == rules["base-uri"] == "'none'"
        assert first.headers["x-content-type-options"] == "nosniff"
        assert first.headers["cross-origin-resource-policy"] == "same-origin"

    served(desk, steps)


def test_another_name_is_refused(desk: Desk, served: Served) -> None:
    """A name that a stranger's DNS points here, and an address that was not asked for, get no page."""

    async def steps(client: httpx.AsyncClient) -> None:
        for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "10.0.0.7", ""):
            answer = await client.get("/", headers={"Host": host})
            assert answer.status_code == 421, host
            assert "UniBind" not in answer.text

    served(desk, steps)


def test_this_machine_s_names_are_answered(desk: Desk, served: Served) -> None:
    """Loopback under all its names."""

    async def steps(client: httpx.AsyncClient) -> None:
        for host in ("localhost", "localhost:8642", "127.0.0.1:1", "[::1]:8642", "LOCALHOST"):
            assert (await client.get("/ui.css", headers={"Host": host})).status_code == 200, host

    served(desk, steps)


def test_another_site_can_send_nothing(desk: Desk, served: Served) -> None:
    """A request that carries another origin is refused, the page's own is not."""

    async def steps(client: httpx.AsyncClient) -> None:
        for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:99"):
            assert (await client.get("/", headers={"Origin": origin})).status_code == 403
        assert (await client.get("/", headers={"Origin": "http://127.0.0.1"})).status_code == 200

    served(desk, steps)


def _raw(guard: Guard, scope: dict[str, Any], *bodies: bytes) -> list[dict[str, Any]]:
    """What the guard answers to a scope that no client would send."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent


def _scope(raw: bytes, *, kind: str = "http", **headers: str) -> dict[str, Any]:
    given = {"host": "127.0.0.1", **headers}
    return {
        "type": kind,
        "method": "GET",
        "path": raw.decode("latin-1"),
        "raw_path": raw,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }


async def _reached(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"reached"})


@pytest.mark.parametrize(
    "raw",
    [
        b"/media/../x", b"/media/%2e%2e/x", b"/..", b"/media/..", b"/media%2fcups", b"/media/%2Fetc%2Fpasswd",
        b"/media/a%5cb", b"/media/a\\b", b"/media/a%00b", b"/media/a\x00", b"/./x", b"/%2e/x", b"/a/.%2E/b",
    ],
)  # fmt: skip
def test_an_odd_path_reaches_no_route(raw: bytes) -> None:
    """Encoded slashes and dots, backslashes and NUL."""
    assert _raw(Guard(_reached, "127.0.0.1"), _scope(raw))[0]["status"] == 400


@pytest.mark.parametrize(
    "raw", [b"/", b"/media/cups", b"/_nicegui/3.18.0/static/a.b.js", b"/media/..cups", b"/a%20b"]
)
def test_a_plain_path_passes(raw: bytes) -> None:
    """Dots within a name are no way up."""
    assert _raw(Guard(_reached, "127.0.0.1"), _scope(raw))[0]["status"] == 299


def test_bodies_are_bounded() -> None:
    """A declared length beyond the limit is refused; one that only arrives counts as broken off."""
    guard = Guard(_reached, "127.0.0.1")
    declared = _raw(guard, _scope(b"/x", **{"content-length": str(MOST_BODY + 1)}))
    assert declared[0]["status"] == 413
    assert _raw(guard, _scope(b"/x", **{"content-length": "-5"}))[0]["status"] == 413
    seen: list[str] = []

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while seen[-1:] != ["http.disconnect"]:
            seen.append((await receive())["type"])

    _raw(Guard(reads, "127.0.0.1"), _scope(b"/x"), b"x" * MOST_BODY, b"x", b"x")
    assert seen == ["http.request", "http.disconnect"]


def test_a_web_socket_of_another_site_is_closed() -> None:
    """NiceGUI's own socket takes any origin; the guard does not."""
    guard = Guard(_reached, "127.0.0.1")
    assert _raw(guard, _scope(b"/_nicegui_ws/", kind="websocket", origin="http://evil.example")) == [
        {"type": "websocket.close", "code": 4403}
    ]
    assert _raw(guard, _scope(b"/_nicegui_ws/", kind="websocket", host="evil.example"))[0]["code"] == 4403
    asked = Guard(_reached, "0.0.0.0", "secret")
    assert _raw(asked, _scope(b"/_nicegui_ws/", kind="websocket"))[0]["code"] == 4401


def test_a_token_is_asked_for_once(desk: Desk, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nothing is shown; it is typed into a form and kept as a cookie, never in an address."""
    monkeypatch.setattr("pipeline.ui.security._WRONG_TOKEN_S", 0.0)

    async def steps(client: httpx.AsyncClient) -> None:
        for path in (
            "/",
            "/samples?modality=image",
            "/media/cups?sample=red-cup-0",
            "/ui.css",
            "/sql/cups.csv?q=x",
        ):
            shut = await client.get(path)
            assert (
                shut.status_code == 401 and "Token" in shut.text and "cups" not in shut.text.replace(path, "")
            )
        wrong = await client.post("/sign-in", data={"token": "no", "back": "/"})
        assert wrong.status_code == 401 and "That is not the token" in wrong.text and not client.cookies
        right = await client.post("/sign-in", data={"token": "s3cret", "back": "/samples?split=test"})
        assert right.status_code == 303 and right.headers["location"] == "/samples?split=test"
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "s3cret" not in cookie
        assert (await client.get("/ui.css")).status_code == 200
        client.cookies.set(COOKIE, "0" * 64)
        forged = await client.get("/ui.css", headers={"Cookie": f"{COOKIE}={'0' * 64}"})
        assert forged.status_code == 401

    served(desk, steps, token="s3cret", host="0.0.0.0")


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", ""])
def test_the_form_leads_nowhere_else(desk: Desk, served: Served, back: str) -> None:
    """After the token, only an address of the app is opened."""

    async def steps(client: httpx.AsyncClient) -> None:
        answer = await client.post("/sign-in", data={"token": "t", "back": back})
        assert answer.headers["location"] == "/"

    served(desk, steps, token="t")


def test_what_the_form_repeats_is_escaped() -> None:
    """The address to go back to is text in the form."""
    assert '"><script>' not in sign_in_page('/"><script>alert(1)</script>')


def test_loopback() -> None:
    """Only what nobody else can reach needs no token."""
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.8.9.10")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "")))
