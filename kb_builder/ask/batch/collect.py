"""Turn queued requests into files and jobs, and bring the jobs to the server.

A job is in the ledger before its file is uploaded, so every step can be repeated after a crash.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from kb_builder.ask.batch import jobs as batch_jobs
from kb_builder.ask.batch.files import BatchFile, write_file
from kb_builder.ask.batch.jobs import DEAD, PLANNED, SUBMITTED, UPLOADED, BatchItem, Job
from kb_builder.ask.batch.progress import NO_HURRY
from kb_builder.ask.batch.run import BatchRun
from kb_builder.ask.ledger import microseconds_now
from kb_builder.ask.request import Request, request_from_json, request_json

if TYPE_CHECKING:
    from openai.types import Batch


async def plan_next(run: BatchRun) -> Job | None:
    """Write the next file and record its job as planned; None where no queued request can be sent now.

    Requests that fit into no file are recorded as refused. Raises `RunError` where the budget is used up.
    """
    job = Job(
        token=secrets.token_hex(16),
        endpoint=run.client.endpoint,
        state=PLANNED,
        requests=0,
        bytes=0,
        file_id=None,
        batch_id=None,
        reserved_usd=None,
        said=None,
        run_id=run.run_id,
        created_at=microseconds_now(),
    )
    taken = _affordable(run)
    if not taken:
        return None
    file = await asyncio.to_thread(_write, run, job, taken)
    refused = [
        run.entry(BatchItem(key, request_json(request), 0), error=file.refused[key])
        for key, request in taken
        if key in file.refused
    ]
    kept = frozenset(file.keys)
    written = {key: request for key, request in taken if key in kept}
    for key in (*file.keys, *file.refused, *file.unreadable):
        del run.queue.queued[key]
    for key in file.unreadable:
        run.queue.deliver(key, None)
    await run.record(refused)
    if not written:
        return None
    job = replace(
        job,
        requests=len(written),
        bytes=file.bytes,
        reserved_usd=run.purse.worst_case(written.values()),
    )
    run.purse.reserve(job)
    await batch_jobs.plan(run.ledger, job, [(key, request_json(each)) for key, each in written.items()])
    run.queue.in_jobs.update(written)
    return job


async def submit(run: BatchRun, job: Job, *, resumed: bool) -> Job | None:
    """Bring a job from the state that it is in to `submitted`; None where its file cannot be written again.

    `resumed`: the job is of an earlier run, which may have uploaded its file.
    """
    if job.state == UPLOADED:
        batch = await _find_batch(run, job)
        if batch is not None:
            job = await _update(run, job, state=SUBMITTED, batch_id=batch.id)
        elif not await run.api.has_file(job.file_id or ""):
            job = await _update(run, job, state=PLANNED, file_id=None)
    if job.state == PLANNED:
        file_id = await _upload(run, job, resumed=resumed)
        if file_id is None:
            await run.end(replace(job, state=DEAD, said="some of its media are gone"), died=False)
            return None
        job = await _update(run, job, state=UPLOADED, file_id=file_id)
    run.path(job).unlink(missing_ok=True)
    if job.state == UPLOADED:
        batch = await run.api.create(job)
        job = await _update(run, job, state=SUBMITTED, batch_id=batch.id)
        run.progress.say(f"batch {batch.id} submitted: {job.requests:,} requests; {NO_HURRY}")
    else:
        run.progress.say(f"batch {job.batch_id} was submitted before: {job.requests:,} requests; {NO_HURRY}")
    return job


def _affordable(run: BatchRun) -> list[tuple[str, Request]]:
    """The next requests that fit into a file and into the budget."""
    taken: list[tuple[str, Request]] = []
    room = run.purse.room()
    for key, request in islice(run.queue.queued.items(), run.queue.file_requests):
        worst = run.purse.bound(request)
        room -= worst
        if room < 0:
            if not taken and not run.purse.has_reservations:
                raise run.purse.used_up(worst)
            if not taken:
                run.queue.room.clear()  # the jobs at the server will cost less than their worst case
            break
        taken.append((key, request))
    return taken


def _write(run: BatchRun, job: Job, requests: Iterable[tuple[str, Request]]) -> BatchFile:
    run.folder.mkdir(parents=True, exist_ok=True)
    return write_file(run.path(job), requests, run.client.body_for, most_bytes=run.pace.file_bytes)


async def _upload(run: BatchRun, job: Job, *, resumed: bool) -> str | None:
    """The id of the uploaded file; None where the file of a killed run cannot be written again."""
    found = await run.api.find_file(job) if resumed else None
    if found is not None:
        return found
    if resumed:  # the killed run's file is gone; the same requests give the same file
        items = batch_jobs.items(run.ledger, job.token)
        requests = ((item.key, request_from_json(item.request)) for item in items)
        file = await asyncio.to_thread(_write, run, job, requests)
        if len(file.keys) < job.requests:
            return None
        job = replace(job, bytes=file.bytes)
    return await run.api.upload(job, run.path(job))


async def _find_batch(run: BatchRun, job: Job) -> Batch | None:
    """The batch of a job whose run was killed while it was being created."""
    batch = await run.api.find_batch(job)
    if batch is None:
        await asyncio.sleep(run.pace.settle_s)
        batch = await run.api.find_batch(job)
    return batch


async def _update(run: BatchRun, job: Job, **changes: Any) -> Job:
    job = replace(job, **changes)
    await batch_jobs.update(run.ledger, job)
    return job
