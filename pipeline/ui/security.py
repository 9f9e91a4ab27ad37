"""Who may speak to the server, and what a page may load and run.

`Guard` stands in front of everything, pages, files and web sockets alike:

- the `Host` header must be this machine's: a name that a stranger's DNS server points at it is refused;
- the `Origin` of a request, where a browser sends one, must be the server itself: another site in the same
  browser can open no socket and send no form;
- an encoded slash, a `..`, a backslash or a NUL in the path is refused before any route sees it;
- bodies are bounded;
- beyond loopback, a token is asked for once and kept as a cookie.

Every page carries a content security policy: nothing is loaded from elsewhere, no page may be framed by
another site, and only scripts that the server itself wrote run (each has the page's own nonce). What remains:
NiceGUI evaluates the handlers that the server sends (`unsafe-eval`) and styles elements inline.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "unibind_ui"
SIGN_IN = "/sign-in"
MOST_FILE = 256 * 2**20  # bytes of one dropped file
MOST_UPLOAD = MOST_FILE + 2**16  # with the form around it
MOST_BODY = 2**20  # of any other request
_WRONG_TOKEN_S = 1.0  # the answer to a wrong token waits this long
# In the path as it was sent: encoded slashes, dots and NUL, which routes would see decoded.
_SUSPICIOUS = re.compile(rb"%2f|%5c|%00|\\|\x00|(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
MEDIA_POLICY = "default-src 'none'; sandbox"


def page_policy(nonce: str) -> str:
    """The content security policy of a page whose own scripts carry `nonce`."""
    rules = {
        "default-src": "'self'",
        "script-src": f"'self' 'nonce-{nonce}' 'unsafe-eval'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "media-src": "'self' blob:",
        "font-src": "'self' data:",
        "connect-src": "'self'",
        "frame-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@dataclass(frozen=True)
class Guard:
    """An ASGI application in front of `app`; see the top of this file. Without `token`, none is asked for."""

    app: App
    host: str
    token: str | None = None
    _session: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it with the reason why not."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = self._refused(scope, headers)
        if refused is not None:
            await _refuse(scope, send, *refused)
            return
        if self.token is not None and not self._has_cookie(headers):
            await self._ask(scope, headers, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        # request.state.nonce, which the page's template puts into its script tags
        nonce = secrets.token_urlsafe(16)
        scope["state"] = {**scope.get("state", {}), "nonce": nonce}
        most = MOST_UPLOAD if "/upload/" in scope["path"] else MOST_BODY
        await self.app(scope, _bounded(receive, most), _with_headers(send, page_policy(nonce)))

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """The status and the reason of a request that must not pass."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 421, (
                f"This server does not answer to the name {host!r}. Open it by the address that"
                " `unibind ui` printed."
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "This request comes from another site."
        if _SUSPICIOUS.search(scope.get("raw_path") or scope["path"].encode()) or "\0" in scope["path"]:
            return 400, "This is no address of the app."
        length = headers.get("content-length", "0")
        most = MOST_UPLOAD if "/upload/" in scope["path"] else MOST_BODY
        if not length.isdecimal() or int(length) > most:
            return 413, f"This is too large: at most {most / 2**20:.0f} MB can be sent."
        return None

    def _is_ours(self, header: str) -> bool:
        """Whether a Host header names this machine. An address of digits cannot be pointed here by DNS."""
        name = (urlsplit(f"//{header}").hostname or "") if header.isprintable() else ""
        names = {*LOOPBACK, self.host.lower()}
        if self.token is None:
            return name in names
        if name in {*names, socket.gethostname().lower(), socket.getfqdn().lower()}:
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    @property
    def _cookie(self) -> str:
        """What the cookie must hold: it ends with this process and does not give the token away."""
        return hashlib.sha256(f"{self._session}:{self.token}".encode()).hexdigest()

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        try:
            jar = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        given = jar[COOKIE].value if COOKIE in jar else ""
        return hmac.compare_digest(given.encode(), self._cookie.encode())

    async def _ask(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """Answer without a cookie: the form that asks for the token, or the check of what was typed there."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401})
            return
        if scope["method"] != "POST" or scope["path"] != SIGN_IN:
            query = scope["query_string"].decode("latin-1")
            back = "/" if scope["path"] == SIGN_IN else scope["path"] + (f"?{query}" if query else "")
            await _respond(send, 401, sign_in_page(back))
            return
        form = parse_qs((await _body(receive)).decode("utf-8", "replace"))
        given, back = (form.get(name, [""])[0] for name in ("token", "back"))
        if not hmac.compare_digest(given.strip().encode(), (self.token or "").encode()):
            await asyncio.sleep(_WRONG_TOKEN_S)
            await _respond(send, 401, sign_in_page(back, "That is not the token."))
            return
        where = back if re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", back) else "/"
        kept = f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
        await _respond(send, 303, "", [(b"location", where.encode()), (b"set-cookie", kept.encode())])


def sign_in_page(back: str, wrong: str = "") -> str:
    """The page that asks for the token; afterwards the browser goes `back`."""
    note = f'<p role="alert">{escape(wrong)}</p>' if wrong else ""
    return _SIGN_IN_PAGE.format(back=escape(back), note=note, action=SIGN_IN)


_SIGN_IN_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>UniBind: sign in</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 18vh auto; padding: 0 1rem }}
  input, button {{ font: inherit; padding: .5rem .7rem; width: 100%; box-sizing: border-box }}
  button {{ margin-top: .5rem }}
</style>
</head>
<body><main>
<h1>UniBind</h1>
<p>This server asks for the token that <code>unibind ui</code> printed when it started.</p>
{note}
<form method="post" action="{action}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" autofocus required>
<input type="hidden" name="back" value="{back}">
<button type="submit">Open</button>
</form>
</main></body>
</html>
"""


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403})
    else:
        await _respond(send, status, f"{why}\n", [], kind=b"text/plain; charset=utf-8")


async def _respond(
    send: Send,
    status: int,
    text: str,
    more: Iterable[tuple[bytes, bytes]] = (),
    *,
    kind: bytes = b"text/html; charset=utf-8",
) -> None:
    """One whole answer of our own, which may run no script."""
    policy = b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    headers = [(b"content-type", kind), (b"content-security-policy", policy), (b"cache-control", b"no-store")]
    headers += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *more]})
    await send({"type": "http.response.body", "body": text.encode()})


async def _body(receive: Receive) -> bytes:
    """The body of a small form, cut off at 4 KB."""
    body = b""
    while len(body) < 4096:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body") or message["type"] == "http.disconnect":
            break
    return body[:4096]


def _bounded(receive: Receive, most: int) -> Receive:
    """The messages of a request; one that sends more than it may counts as broken off."""
    seen = 0

    async def receive_bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > most else message

    return receive_bounded


def _with_headers(send: Send, policy: str) -> Send:
    """Add the headers of every answer; a policy that a route has set stays."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            there = {name.lower() for name, _ in headers}
            wanted = {**_HEADERS, "content-security-policy": policy}
            headers += [(n.encode(), v.encode()) for n, v in wanted.items() if n.encode() not in there]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_headers


def give_scripts_nonces() -> None:
    """Let NiceGUI's page template put the request's nonce (`request.state.nonce`) into each script tag.

    The template's source is changed, not the page: a `<script` in a text stays text.
    """
    from jinja2 import BaseLoader, Environment
    from nicegui.client import templates

    class WithNonces(BaseLoader):
        """The loader of NiceGUI's templates, with a nonce in every script tag of their source."""

        def __init__(self, inner: BaseLoader) -> None:
            self.inner = inner

        def get_source(
            self, environment: Environment, template: str
        ) -> tuple[str, str | None, Callable[[], bool] | None]:
            """A template's source, its file, and whether it is still the same."""
            source, file, same = self.inner.get_source(environment, template)
            return (
                re.sub(r"<script(?=[\s>])", '<script nonce="{{ request.state.nonce }}"', source),
                file,
                same,
            )

    environment = templates.env
    if isinstance(environment.loader, BaseLoader) and not hasattr(environment.loader, "inner"):
        environment.loader = WithNonces(environment.loader)
        if environment.cache is not None:
            environment.cache.clear()
