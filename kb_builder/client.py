"""Chat completions through the `openai` package; its errors are turned into ours here and nowhere else."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from data.errors import (
    DescriberError,
    MissingDependencyError,
    RequestError,
    RunError,
    ThrottledError,
    TransientError,
)
from kb_builder.reply import Reply, read_limits
from kb_builder.request import Media, Request

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"

_SHORTEST_KEY = 8  # shorter ones ("none") are words, and no secrets
_TRANSIENT = {408, 409, 425}
_ROW = {400, 413, 422}  # this request is wrong; every other 4xx is wrong for all of them
_OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_NO_MODEL = {"model_not_found", "invalid_model", "model_not_supported"}


class Describer(Protocol):
    """What answers requests. `endpoint` and `model` go into every request's key."""

    provider: str  # openai | local | fake
    source: str  # online | local | fake: the `source` column
    endpoint: str
    model: str

    async def answer(self, request: Request) -> Reply:
        """One attempt at one request: a body with at least one choice. Raises a `DescriberError`, or a
        `SampleError` where its media cannot be read."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class ChatClient:
    """A `Describer` that speaks chat completions.

    `connect` returns (base URL, API key) and is called before the first request, not earlier: a run that
    finds every answer in its ledger starts no server and needs no key. `load` turns a `Media` of a message
    into the part that is sent (data URL or base64); it is called in a thread, once per attempt. `key_name` is
    the variable that the key is read from, if any.
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
    ) -> None:
        self.provider = provider
        self.source = source
        self.endpoint = endpoint
        self.model = model
        self._connect = connect
        self._load = load
        self._client: AsyncOpenAI | None = None
        self._key_name = key_name
        self._key: re.Pattern[str] | None = None  # as servers may quote it back; None: there is none to hide

    async def answer(self, request: Request) -> Reply:
        """The answer's body as it came. Makes one attempt: trying again is the scheduler's work."""
        import httpx

        messages = await self._messages(request)
        with self.vendor() as client:
            # Not `chat.completions.create`: it walks through every message to bring it into the form that it
            # has already, which costs half of the time of a request.
            response = await client.post(
                "/chat/completions", cast_to=httpx.Response, body=self._body(request, messages)
            )
        body = self.hide(response.text)
        check_body(body, where=self.endpoint)
        return Reply(body, read_limits(response.headers))

    def body_for(self, request: Request) -> dict[str, Any]:
        """The whole body of a request, its media read and encoded now: for a thread, not the event loop."""
        return self._body(request, self._loaded(request))

    @contextmanager
    def vendor(self) -> Iterator[AsyncOpenAI]:
        """The vendor's client, opened on first use; its errors leave the block as ours."""
        import aiohttp
        import openai

        client = self._client or self._open()
        try:
            yield client
        except openai.APIStatusError as error:
            raise self._status_error(error) from None  # the vendor's error holds the request's headers
        except openai.APIConnectionError as error:
            raise self._connection_error(error) from None
        except openai.OpenAIError as error:
            raise TransientError(self._say(str(error))) from None
        except aiohttp.ClientError as error:  # a broken answer's head reaches us as it is
            raise TransientError(self._say(str(error)), maybe_paid=True) from None

    def hide(self, text: str) -> str:
        """Servers quote the API key back in errors; it must reach no table, log or message."""
        return text if self._key is None else self._key.sub("***", text)

    async def close(self) -> None:
        """Close the connections, if any were opened."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _open(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAioHttpClient

        url, key = self._connect()
        if len(key) >= _SHORTEST_KEY:
            self._key = re.compile(re.escape(key), re.IGNORECASE)
        self._client = AsyncOpenAI(
            base_url=url, api_key=key, max_retries=0, http_client=DefaultAioHttpClient()
        )
        return self._client

    async def _messages(self, request: Request) -> list[dict[str, Any]]:
        """The messages as they are sent: media are read and encoded now, in a thread."""
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
            raise ValueError("this client was made without `load`: it cannot send media")
        return [
            {"type": "text", "text": part} if isinstance(part, str) else self._load(part) for part in content
        ]

    def _body(self, request: Request, messages: list[dict[str, Any]]) -> dict[str, Any]:
        # OpenAI's own newer models refuse `max_tokens`; most compatible servers know only that name.
        limit = "max_completion_tokens" if self.endpoint == endpoint_identity(OPENAI_URL) else "max_tokens"
        body = {
            "model": request.model,
            "messages": messages,
            "temperature": request.temperature,
            "top_p": request.top_p,
            limit: request.max_tokens,
            "seed": request.seed,
        }
        return {name: value for name, value in body.items() if value is not None} | dict(request.extra)

    def _status_error(self, error: APIStatusError) -> DescriberError:
        detail = error.body if isinstance(error.body, dict) else {}
        message = detail.get("message") or error.response.text.strip() or error.message
        if error.status_code in {401, 403} and self._key_name is not None and self._key is None:
            message = f"{message} ({self._key_name} is not set: no key was sent)"
        found = error_for(
            error.status_code,
            self._say(f"status {error.status_code}: {message}"),
            code=str(detail.get("code") or detail.get("type") or ""),
            retry_after=retry_after(error.response.headers),
        )
        if isinstance(found, ThrottledError):
            found.limits = read_limits(error.response.headers)
        return found

    def _connection_error(self, error: APIConnectionError) -> TransientError:
        import aiohttp
        import openai

        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
            if isinstance(
                cause, aiohttp.ClientConnectorError
            ):  # nobody listens; the vendor calls it a time-out
                return TransientError(self._say(str(cause)))
        said = "no answer in time" if isinstance(error, openai.APITimeoutError) else str(cause)
        return TransientError(self._say(said), maybe_paid=True)

    def _say(self, text: str) -> str:
        # Not the address itself: its query may hold a secret.
        return f"{self.endpoint}: {shorten(self.hide(text))}"


def error_for(
    status: int, message: str, *, code: str = "", retry_after: float | None = None
) -> TransientError | ThrottledError | RequestError | RunError:
    """The error class of an HTTP status and the vendor's error code."""
    if code in _OUT_OF_MONEY:
        return RunError(f"{message}; mend the account's quota, then run again: answered requests are kept")
    if code in _NO_MODEL or status == 404:
        return RunError(f"{message}; check `model` and `base_url` in the project file")
    if status == 429:
        return ThrottledError(message, retry_after=retry_after)
    if status in _TRANSIENT or status >= 500:
        return TransientError(message)
    if status in _ROW:
        return RequestError(message)
    if status in {401, 403}:
        return RunError(f"{message}; check the API key (the variable named by `api_key_env`) and its rights")
    return RunError(message)


def check_body(body: str, *, where: str) -> None:
    """Raise what a body of status 200 really says: torn JSON, an error inside, no choices. Else return."""
    try:
        value = json.loads(body)
    except ValueError:
        raise TransientError(f"{where}: the answer is not JSON: {shorten(body)!r}", maybe_paid=True) from None
    if not isinstance(value, dict):
        raise TransientError(f"{where}: the answer is not a JSON object: {shorten(body)!r}", maybe_paid=True)
    error = value.get("error")
    if error:
        detail = error if isinstance(error, dict) else {"message": str(error)}
        code = detail.get("code")
        status = code if isinstance(code, int) else 500  # a server that fails politely is still failing
        raise error_for(
            status, f"{where}: {shorten(str(detail.get('message') or error))}", code=str(code or "")
        )
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise TransientError(f"{where}: the answer has no choices", maybe_paid=True)
    if not isinstance(choices[0].get("message"), dict):
        raise TransientError(f"{where}: the answer's first choice has no message", maybe_paid=True)


def retry_after(headers: Any) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or an HTTP date), or None."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError):  # neither a number nor a date with its zone
                continue
        return max(0.0, seconds)
    return None


def endpoint_identity(base_url: str) -> str:
    """Who answers, for the request key: scheme, host, port and path; user info and query may hold secrets."""
    parts = urlsplit(base_url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path.rstrip('/')}"


def shorten(text: str, limit: int = 300) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def openai_client(
    *,
    model: str | None,
    base_url: str | None,
    api_key_env: str,
    load: Callable[[Media], dict[str, Any]] | None = None,
) -> ChatClient:
    """A client for OpenAI or any compatible endpoint. The key is read when it is first needed."""
    if not model:
        raise RunError('describer = "openai" needs `model` in the project file')
    url = base_url or OPENAI_URL

    def connect() -> tuple[str, str]:
        key = os.environ.get(api_key_env, "").strip()
        if not key and base_url is None:
            raise RunError(f"no API key: set the environment variable {api_key_env} (or set `base_url`)")
        if not (key.isascii() and key.isprintable()):
            raise RunError(
                f"the value of {api_key_env} is no API key: it holds a line break, or letters beyond ASCII"
            )
        return url, key or "none"  # servers of one's own ask for no key; the client insists on some text

    return ChatClient(
        provider="openai",
        source="online",
        endpoint=endpoint_identity(url),
        model=model,
        connect=connect,
        load=load,
        key_name=api_key_env,
    )


def local_client() -> ChatClient:
    """A client of the bundled SmolLM2-135M, served in this process from the first request on."""
    from kb_builder import local_llm

    gguf = local_llm.model_file()
    if gguf is None:
        raise MissingDependencyError(local_llm.INSTALL)
    return ChatClient(
        provider="local",
        source="local",
        endpoint=local_llm.identity(gguf),
        model=local_llm.MODEL,
        connect=lambda: (local_llm.serve(gguf), "none"),
    )
