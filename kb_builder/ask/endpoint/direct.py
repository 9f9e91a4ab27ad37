"""POST of JSON to one address by aiohttp alone: all that nearly every request needs.

The vendor's client builds each request and answer twice (its own objects, then httpx's) before aiohttp sees
it. Redirects and proxies are left to it: see `ChatClient.answer`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from yarl import URL

from data.errors import UniBindError
from kb_builder.ask.endpoint.bodies import ACCEPTED, check_redirect, read_text, unreadable

# Those of the vendor's client.
_CONNECTIONS = 1000
_KEEP_S = 5.0
# The callers end calls that take too long: another timer for each request would cost time for nothing.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0)


# What the vendor's client reads of the environment, and sends.
_OWN = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


def sent_headers(key: str) -> dict[str, str]:
    """The headers of every request."""
    own = {header: value for name, header in _OWN.items() if (value := os.environ.get(name))}
    return {
        "Accept": "application/json",
        "Accept-Encoding": ACCEPTED,
        "Content-Type": "application/json",
        "User-Agent": "unibind",
        "Authorization": f"Bearer {key}",
        **own,
    }


class Posted(NamedTuple):
    """An answer. `text` is empty for a redirect."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def redirects(self) -> bool:
        """Whether the answer is another address."""
        return 300 <= self.status < 400


def _trusted() -> ssl.SSLContext:
    """The certificates that the vendor's client trusts: certifi's, or those that the environment names."""
    import httpx2

    return httpx2.create_ssl_context()


class DirectClient:
    """Connections to one server. Made in the event loop that uses it."""

    def __init__(self, url: str, headers: Mapping[str, str], *, most_bytes: int) -> None:
        """`url` may have a query, which is kept; `most_bytes` bounds a body."""
        self._url = URL(url, encoded=True)  # a signature in its query stays as it is
        self._most_bytes = most_bytes
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS,
                keepalive_timeout=_KEEP_S,
                ssl=_trusted() if self._url.scheme == "https" else True,
            ),
            timeout=_TIMEOUT,
            auto_decompress=False,
        )

    async def post(self, body: bytes) -> Posted:
        """The answer to one request. Raises aiohttp's errors, and those of `bodies.read_text`."""
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                if 300 <= response.status < 400:
                    target = self._url.join(URL(response.headers.get("location", "")))
                    check_redirect("POST", str(self._url), response.status, str(target))
                    return Posted(response.status, response.headers, "")
                text = await read_text(
                    response.content.iter_any(),
                    response.headers,
                    most_bytes=self._most_bytes,
                    strict=response.ok,
                )
                return Posted(response.status, response.headers, text)
        except (UniBindError, aiohttp.ClientError):
            raise
        except Exception as error:
            raise unreadable(error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
