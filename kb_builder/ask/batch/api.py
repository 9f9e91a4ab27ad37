"""Files and batches at the server, through the `openai` package, with retries.

Every call is retried while the server fails (429, 5xx, broken connections), until it has failed for
`outage_s` without a break. A call whose answer was lost may have taken effect, so its result is searched
before a retry: an uploaded file by its name, a batch by its token or its file.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from data.errors import RequestError, RunError, ThrottledError, TransientError
from kb_builder.ask.batch.jobs import Job
from kb_builder.ask.endpoint.client import ChatClient

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

ENDPOINT: Final = "/v1/chat/completions"
TOKEN = "unibind_token"  # the metadata key
_PAGE = 100
_OLDER_S = 86_400  # clocks differ: a batch that is older than its job by more than this is another one
_UPLOAD_S = 3600.0  # without a byte moving, at most
_SLOWEST_BYTES_S = 50_000.0  # bytes per second of an upload
_SLOWEST_ANSWER_S = 0.1  # seconds per answer of a download
_LINE_BYTES = 4096  # of a result, without its answer

_T = TypeVar("_T")


def file_name(job: Job) -> str:
    """The name of a job's file at the server, by which it is found again."""
    return f"unibind-{job.token}.jsonl"


async def _within(seconds: float, call: Awaitable[_T]) -> _T:
    """Bound the whole call: a server that sends one byte a second never runs into a read timeout."""
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError:
        raise TransientError(f"no whole answer within {seconds:g} s", maybe_paid=True) from None


class BatchApi:
    """The calls that a batch needs. All of them may raise `RunError`."""

    def __init__(
        self,
        client: ChatClient,
        *,
        outage_s: float,
        call_s: float,
        most_bytes: int,
        first_pause_s: float,
        on_pause: Callable[[str | None], None],
    ) -> None:
        """`call_s` bounds every call that carries no whole file, `most_bytes` the size of an answer.

        `on_pause` is called with the reason of a pause, and with None when it is over.
        """
        self._call_s = call_s
        self._most_bytes = most_bytes
        self._client = client
        self._outage_s = outage_s
        self._first_pause_s = first_pause_s
        self._on_pause = on_pause
        self._jitter = random.Random(0)  # spreads calls; changes no result

    async def upload(self, job: Job, path: Path) -> str:
        """Upload a job's file; returns its id at the server."""
        return await self._do(
            lambda vendor: self._upload(vendor, job, path),
            done=lambda: self.find_file(job),
            limit_s=self._call_s + job.bytes / _SLOWEST_BYTES_S,
        )

    async def find_file(self, job: Job) -> str | None:
        """The id of a complete file with the job's name. Incomplete ones are deleted."""

        async def look(vendor: AsyncOpenAI) -> str | None:
            found = None
            async for file in vendor.files.list(purpose="batch", order="desc", limit=_PAGE):
                if file.created_at < job.created_at / 1e6 - _OLDER_S:
                    break
                if file.filename != file_name(job):
                    continue
                if file.bytes == job.bytes and file.status != "error" and found is None:
                    found = file.id
                else:
                    await vendor.files.delete(file.id)
            return found

        return await self._do(look)

    async def create(self, job: Job) -> Batch:
        """Create the batch of a job's uploaded file."""
        file_id = job.file_id
        assert file_id is not None

        async def create(vendor: AsyncOpenAI) -> Batch:
            return await vendor.batches.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={TOKEN: job.token},
            )

        return await self._do(create, done=lambda: self.find_batch(job))

    async def find_batch(self, job: Job) -> Batch | None:
        """The batch of a job, or None if it was never created."""

        async def look(vendor: AsyncOpenAI) -> Batch | None:
            async for batch in vendor.batches.list(limit=_PAGE):
                if batch.created_at < job.created_at / 1e6 - _OLDER_S:
                    return None
                if (batch.metadata or {}).get(TOKEN) == job.token or batch.input_file_id == job.file_id:
                    return batch
            return None

        return await self._do(look)

    async def retrieve(self, batch_id: str) -> Batch | None:
        """The current state of a batch; None if the server does not know it."""
        import openai

        async def retrieve(vendor: AsyncOpenAI) -> Batch | None:
            try:
                return await vendor.batches.retrieve(batch_id)
            except openai.NotFoundError:
                return None

        return await self._do(retrieve)

    async def download(self, file_id: str, path: Path, *, requests: int) -> bool:
        """Download a file to `path`; False if the server no longer has it.

        Raises RunError for a file that is larger than the answers to `requests` requests may be.
        """
        most = requests * (self._most_bytes + _LINE_BYTES)
        import openai

        async def download(vendor: AsyncOpenAI) -> bool:
            try:
                async with vendor.files.with_streaming_response.content(file_id) as response:
                    with path.open("wb") as file:
                        async for piece in response.iter_bytes():
                            file.write(piece)
                            if file.tell() > most:
                                raise RunError(
                                    f"the results of {requests:,} requests have more than {most:,} bytes "
                                    "(`max_answer_mb` each): not read further"
                                )
            except openai.NotFoundError:
                return False
            return True

        return await self._do(download, limit_s=self._call_s + requests * _SLOWEST_ANSWER_S)

    async def has_file(self, file_id: str) -> bool:
        """Whether an uploaded file still exists."""
        import openai

        async def look(vendor: AsyncOpenAI) -> bool:
            try:
                await vendor.files.retrieve(file_id)
            except openai.NotFoundError:
                return False
            return True

        return await self._do(look)

    @staticmethod
    async def _upload(vendor: AsyncOpenAI, job: Job, path: Path) -> str:
        with path.open("rb") as file:  # streamed: given a path, the vendor reads the whole file into memory
            sent = await vendor.files.create(
                file=(file_name(job), file, "application/jsonl"), purpose="batch", timeout=_UPLOAD_S
            )
        return sent.id

    async def _do(
        self,
        call: Callable[[AsyncOpenAI], Awaitable[_T]],
        *,
        done: Callable[[], Awaitable[_T | None]] | None = None,
        limit_s: float | None = None,
    ) -> _T:
        """Make a call, with retries. `done` finds the result of a call whose answer was lost."""
        clock = asyncio.get_running_loop().time
        failing_since: float | None = None
        attempt = 0
        while True:
            try:
                with self._client.vendor() as vendor:
                    result = await _within(limit_s or self._call_s, call(vendor))
            except RequestError as error:
                raise RunError(f"{error}; does this endpoint have a Batch API?") from None
            except (TransientError, ThrottledError) as error:
                now = clock()
                failing_since = now if failing_since is None else failing_since
                if now - failing_since >= self._outage_s:
                    raise RunError(
                        f"the Batch API failed for {self._outage_s:g} s, the last time with: {error}; "
                        "run again to continue: nothing is submitted twice"
                    ) from None
                self._on_pause(str(error))
                longest = min(30.0, self._first_pause_s * 2.0 ** min(attempt, 30))
                wait = error.retry_after if isinstance(error, ThrottledError) else None
                await asyncio.sleep((wait or 0.0) + self._jitter.uniform(0.0, longest))
                attempt += 1
                found = await done() if done else None
                if found is None:
                    continue
                result = found
            self._on_pause(None)
            return result
