"""The server's side of a batch: files and batches through the `openai` package, patiently.

Every call is tried again while the server fails (429, 5xx, torn connections), until it has failed for
`outage_s` without a break. What a call may have done although its answer was lost is looked for before it is
done again: an uploaded file by its name, a batch by its token or its file.
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
_OLDER_S = 86_400  # clocks differ: batches older than a job by more than this are not its own
_UPLOAD_S = 3600.0  # without a byte moving, at most
_SLOWEST_BYTES_S = 50_000.0  # of a file that is uploaded
_SLOWEST_ANSWER_S = 0.1  # of each answer in a file that is downloaded
_LINE_BYTES = 4096  # of a result beside its answer

_T = TypeVar("_T")


def file_name(job: Job) -> str:
    """The name under which a job's file is uploaded, and found again."""
    return f"unibind-{job.token}.jsonl"


async def _within(seconds: float, call: Awaitable[_T]) -> _T:
    """The whole of a call ends by then: a server that sends a byte a second is never silent."""
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError:
        raise TransientError(f"no whole answer within {seconds:g} s", maybe_paid=True) from None


class BatchApi:
    """The few calls that a batch needs. All may raise `RunError`."""

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
        """`call_s` ends any call but those that carry whole files; `most_bytes` may an answer have."""
        self._call_s = call_s
        self._most_bytes = most_bytes
        self._client = client
        self._outage_s = outage_s
        self._first_pause_s = first_pause_s
        self._on_pause = on_pause
        self._jitter = random.Random(0)  # spreads calls; changes no result

    async def upload(self, job: Job, path: Path) -> str:
        """Upload a job's file; returns its id on the server."""
        return await self._do(
            lambda vendor: self._upload(vendor, job, path),
            done=lambda: self.find_file(job),
            limit_s=self._call_s + job.bytes / _SLOWEST_BYTES_S,
        )

    async def find_file(self, job: Job) -> str | None:
        """The id of a whole file of the job's name. Torn ones are deleted."""

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
        """Submit the job's file."""
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
        """The batch that was made of the job, if there is one."""

        async def look(vendor: AsyncOpenAI) -> Batch | None:
            async for batch in vendor.batches.list(limit=_PAGE):
                if batch.created_at < job.created_at / 1e6 - _OLDER_S:
                    return None
                if (batch.metadata or {}).get(TOKEN) == job.token or batch.input_file_id == job.file_id:
                    return batch
            return None

        return await self._do(look)

    async def retrieve(self, batch_id: str) -> Batch | None:
        """How a batch stands; None where the server knows of none."""
        import openai

        async def retrieve(vendor: AsyncOpenAI) -> Batch | None:
            try:
                return await vendor.batches.retrieve(batch_id)
            except openai.NotFoundError:
                return None

        return await self._do(retrieve)

    async def download(self, file_id: str, path: Path, *, requests: int) -> bool:
        """Bring a file's content to `path`, in pieces; False where the server no longer has it.

        More than the answers to so many requests may have is not read: RunError.
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
        """Whether an uploaded file is still there."""
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
        with path.open("rb") as file:  # sent in pieces: a path would be read into memory whole
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
        """One call, tried again while the server fails. `done` looks for what a lost answer left behind."""
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
                        "run again to go on: nothing is submitted twice"
                    ) from None
                self._on_pause(str(error))
                longest = min(30.0, self._first_pause_s * 2.0 ** min(attempt, 30))
                told = error.retry_after if isinstance(error, ThrottledError) else None
                await asyncio.sleep((told or 0.0) + self._jitter.uniform(0.0, longest))
                attempt += 1
                found = await done() if done else None
                if found is None:
                    continue
                result = found
            self._on_pause(None)
            return result
