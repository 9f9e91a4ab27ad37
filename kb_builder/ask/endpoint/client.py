"""Client of chat completions: the `openai` package, whose errors are turned into ours here only.

The meaning of each status and error code is in kb_builder/ask/endpoint/status.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from data.errors import DescriberError, ThrottledError, TransientError, UniBindError
from data.show import shorten
from kb_builder.ask.endpoint.hidden_key import HiddenKey, silence_vendor
from kb_builder.ask.endpoint.parameters import body_of
from kb_builder.ask.endpoint.proxies import Proxy, proxy_for
from kb_builder.ask.endpoint.status import Remedy, check_body, error_for, renamed, retry_after, words_of
from kb_builder.ask.request import OPENAI_URL, Media, Reply, Request, endpoint_identity, read_limits

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from kb_builder.ask.endpoint.direct import DirectClient, Posted

MOST_BYTES = 8_000_000
NO_KEY = "none"  # for servers without a key: the vendor's client requires some text


class ChatClient:
    """A `Describer` over an endpoint of chat completions.

    `connect` returns (base URL, API key) and is called before the first request: a run that finds every
    answer in its ledger starts no server and needs no key. `load` turns a `Media` of a message into the part
    that is sent (data URL or base64); it is called in a thread, once per attempt. `key_name` is the
    environment variable that the key is read from, if any. `remedy` interprets refusals (see
    `parameters.remedy`). Bodies are read up to `most_bytes`.
    """

    def __init__(
        self,
        *,
        provider: str,
        source: str,
        endpoint: str,
        model: str,
        connect: Callable[[], tuple[str, str]],
        load: Callable[[Media], dict[str, Any]] | None = None,
        key_name: str | None = None,
        remedy: Remedy = lambda said, param, code: None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.provider = provider
        self.source = source
        self.endpoint = endpoint
        self.model = model
        self._connect = connect
        self._load = load
        self._client: AsyncOpenAI | None = None
        self._direct: DirectClient | None = None  # None before the first request, and where it is not enough
        self._redirected = False
        self._url: str | None = None  # what `connect` returned, once it was called
        self._sent_key = NO_KEY
        self._key_name = key_name
        self._key = HiddenKey("")
        self._no_key = True  # no key is sent
        self._proxy: Proxy | None = None
        self.remedy = remedy
        self._most_bytes = most_bytes

    async def answer(self, request: Request) -> Reply:
        """The unchanged body of the answer. Makes one attempt: retries are the scheduler's task."""
        body = body_of(request, await self._messages(request))
        if self._url is None:
            self._reach()
        posted = None if self._redirected else await self._post(body)
        if posted is None or posted.redirects:  # now and from now on
            self._redirected = True
            posted = await self._post_by_vendor(body)
        text, headers = self.hide(posted.text), posted.headers
        check_body(text, where=self._where, remedy=self.remedy)
        return Reply(text, read_limits(headers))

    async def _post(self, body: Mapping[str, Any]) -> Posted | None:
        """The answer by aiohttp alone; None where that is not enough."""
        if self._direct is None:
            return None
        try:
            posted = await self._direct.post(_encoded(body))
        except Exception as error:
            raise self._ours(error) from None
        if posted.status < 200 or posted.status >= 400:
            raise self._status_error(posted.status, posted.headers, posted.text)
        return posted

    async def _post_by_vendor(self, body: Mapping[str, Any]) -> Posted:
        """The answer by the vendor's client, which follows redirects and knows proxies."""
        import httpx2

        from kb_builder.ask.endpoint.direct import Posted

        with self.vendor() as client:
            # Not `chat.completions.create`: it converts every message into the form that it already has.
            response = await client.post("/chat/completions", cast_to=httpx2.Response, body=body)
        return Posted(response.status_code, response.headers, response.text)

    def body_for(self, request: Request) -> dict[str, Any]:
        """The whole body of a request. Reads and encodes its media, so call it in a thread."""
        return body_of(request, self._loaded(request))

    @contextmanager
    def vendor(self) -> Iterator[AsyncOpenAI]:
        """The vendor's client, opened on first use. Its errors leave the block as `DescriberError`."""
        client = self._client or self._open()
        try:
            yield client
        except Exception as error:
            raise self._ours(error) from None  # the vendor's error holds the request's headers

    def _ours(self, error: Exception) -> Exception:
        """The `DescriberError` for an error of the vendor's client, of aiohttp, or of our transport."""
        import aiohttp

        if self._client is not None:
            import openai

            if isinstance(error, openai.APIStatusError):
                return self._status_error(error.status_code, error.response.headers, error.response.text)
            if isinstance(error, openai.APIConnectionError):
                return self._connection_error(error, late=isinstance(error, openai.APITimeoutError))
            if isinstance(error, openai.OpenAIError):
                return TransientError(self._say(str(error)))
        if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
            return self._connection_error(error, late=isinstance(error, aiohttp.ClientConnectionError))
        if isinstance(error, aiohttp.ClientError):  # a damaged response head
            return TransientError(self._say(str(error)), maybe_paid=True)
        if isinstance(error, DescriberError):  # raised by our transport
            return renamed(error, self._say(str(error)))
        if isinstance(error, UniBindError | OSError):
            return error
        # The vendor's reader on a body that breaks the protocol.
        return TransientError(
            self._say(f"the answer cannot be read: {type(error).__name__}: {error}"), maybe_paid=True
        )

    def hide(self, text: str) -> str:
        """Remove the API key: servers quote it in errors, and it must reach no table, log or message."""
        return self._key.hide(text)

    async def close(self) -> None:
        """Close the connections, if any were opened."""
        if self._direct is not None:
            await self._direct.close()
            self._direct = None
        if self._client is not None:
            await self._client.close()
            self._client = None
        self._url = None

    def _reach(self) -> tuple[str, str]:
        """Learn the base URL and the key, and open the connections. Returns both."""
        silence_vendor()
        from kb_builder.ask.endpoint.direct import DirectClient, sent_headers

        url, key = self._connect()
        self._url, self._sent_key = url, key
        self._key = HiddenKey(key)
        self._no_key = key == NO_KEY
        self._proxy = proxy_for(url)
        if self._proxy is None:
            self._direct = DirectClient(chat_url(url), sent_headers(key), most_bytes=self._most_bytes)
        return url, key

    def _open(self) -> AsyncOpenAI:
        """The vendor's client. It takes a second to import: most runs do without."""
        url, key = (self._url, self._sent_key) if self._url is not None else self._reach()
        from openai import AsyncOpenAI

        from kb_builder.ask.endpoint.transport import BoundedClient

        self._client = AsyncOpenAI(
            base_url=url,
            api_key=key,
            max_retries=0,
            http_client=BoundedClient(url, most_bytes=self._most_bytes),
        )
        return self._client

    @property
    def _where(self) -> str:
        """The server, for errors. Not the address itself, whose query may hold a secret."""
        return (
            self.endpoint
            if self._proxy is None
            else f"{self.endpoint}, through the proxy {self._proxy.shown}"
        )

    async def _messages(self, request: Request) -> list[dict[str, Any]]:
        """The messages in the form that is sent. Media are read and encoded in a thread."""
        if all(isinstance(content, str) for _, content in request.messages):
            return self._loaded(request)
        return await asyncio.to_thread(self._loaded, request)

    def _loaded(self, request: Request) -> list[dict[str, Any]]:
        return [
            {"role": role, "content": content if isinstance(content, str) else self._parts(content)}
            for role, content in request.messages
        ]

    def _parts(self, content: tuple[str | Media, ...]) -> list[dict[str, Any]]:
        if self._load is None:
            raise ValueError("this client has no `load`: it cannot send media")
        return [
            {"type": "text", "text": part} if isinstance(part, str) else self._load(part) for part in content
        ]

    def _status_error(self, status: int, headers: Mapping[str, str], text: str) -> DescriberError:
        whole = text.strip()
        detail = _detail(_read(whole))
        message = words_of(detail.get("message") or "") or whole or f"Error code: {status}"
        code, param = str(detail.get("code") or detail.get("type") or ""), detail.get("param")
        if status in {401, 403} and self._key_name is not None and self._no_key:
            message = f"{message} ({self._key_name} is not set: no key was sent)"
        found = error_for(
            status,
            self._say(f"status {status}: {message}"),
            code=code,
            retry_after=retry_after(headers),
            remedy=self.remedy(f"{message} {whole}", param if isinstance(param, str) else None, code),
        )
        if isinstance(found, ThrottledError):
            found.limits = read_limits(headers)
        return found

    def _connection_error(self, error: Exception, *, late: bool) -> TransientError:
        import aiohttp

        cause: BaseException = error
        while True:
            if isinstance(cause, aiohttp.ClientConnectorError):  # refused; the vendor calls it a timeout
                return TransientError(self._say(str(cause)))
            if cause.__cause__ is None:
                break
            cause = cause.__cause__
        return TransientError(self._say("no answer in time" if late else str(cause)), maybe_paid=True)

    def _say(self, text: str) -> str:
        return f"{self._where}: {shorten(self.hide(text))}"


def _encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON, in the vendor's form."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _read(text: str) -> object:
    """The value of a body of an error, if it is JSON, without the object around the error."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value.get("error", value) if isinstance(value, dict) else value


def _detail(body: object) -> dict[str, Any]:
    """The error object of a body. Some servers send a list of one, others none at all."""
    if isinstance(body, list) and body:
        body = body[0]
    inner = body.get("error") if isinstance(body, dict) else None
    found = inner if isinstance(inner, dict) else body
    return found if isinstance(found, dict) else {}


def chat_url(base_url: str) -> str:
    """The address of chat completions below a base URL, whose query stays."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/chat/completions", fragment=""))


def endpoint_of(base_url: str | tuple[str, ...] | None) -> str:
    """The identity of `base_url` in request keys; for several addresses, of the one that sorts first.

    So the order of the list changes no request, and keys do not depend on which of them answered.
    """
    urls = (base_url,) if isinstance(base_url, str) else base_url or (OPENAI_URL,)
    return min(map(endpoint_identity, urls))
