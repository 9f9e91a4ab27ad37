"""POST of JSON to one address by aiohttp alone: all that nearly every request needs.

The vendor's client builds each request and answer twice (its own objects, then httpx's) before aiohttp sees
it. Redirects and proxies are left to it: see `ChatClient.answer`. The bounds are those of `transport`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
import httpx2
from yarl import URL

from data.errors import UniBindError
from kb_builder.ask.endpoint.transport import ACCEPTED, check_redirect, read_text, unreadable

# Those of the vendor's client.
_CONNECTIONS = 1000
_KEEP_S = 5.0
# The callers end calls that take too long: another timer for each request would cost time for nothing.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0)


class Posted(NamedTuple):
    """An answer. `text` is empty for a redirect."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def redirects(self) -> bool:
        """Whether the answer is another address."""
        return 300 <= self.status < 400


class DirectClient:
    """Connections to one server. Made in the event loop that uses it."""

    def __init__(self, url: str, headers: Mapping[str, str], *, most_bytes: int) -> None:
        self._url = URL(url)
        self._most_bytes = most_bytes
        self._session = aiohttp.ClientSession(
            headers={**headers, "Accept-Encoding": ACCEPTED},
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS, keepalive_timeout=_KEEP_S, ssl=httpx2.create_ssl_context()
            ),
            timeout=_TIMEOUT,
            auto_decompress=False,
        )

    async def post(self, body: bytes) -> Posted:
        """The answer to one request. Raises aiohttp's errors, and those of `transport.read_text`."""
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                if 300 <= response.status < 400:
                    check_redirect("POST", httpx2.URL(str(self._url)), response.status, response.headers)
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
