"""Files and Batch API: uploads, and jobs that are processed as the settings script them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import web

from kb_builder.fake_openai.answers import answer
from kb_builder.fake_openai.chat import check_fields, check_key, check_model, count_answer
from kb_builder.fake_openai.check import check_request
from kb_builder.fake_openai.draws import choose, number, request_hash, uniform
from kb_builder.fake_openai.errors import ApiError
from kb_builder.fake_openai.settings import FakeSettings
from kb_builder.fake_openai.state import STATE, Batch, State, StoredFile

_ENDPOINT = "/v1/chat/completions"
_MOST_METADATA = 16
_LINES_AT_ONCE = 20  # processed before other requests get their turn
_CANCEL_POLL_S = 0.02

_Record = TypeVar("_Record", StoredFile, Batch)


async def upload(request: web.Request) -> web.Response:
    """POST /v1/files, multipart: `file` and `purpose`."""
    state = _state(request)
    form = await request.post()
    upload, purpose = form.get("file"), form.get("purpose")
    if not isinstance(upload, web.FileField) or not isinstance(purpose, str):
        raise ApiError(400, "'file' and 'purpose' are required.", param="file")
    data = upload.file.read()
    if purpose == "batch" and len(data) > state.settings.batch_max_bytes:
        raise ApiError(
            400,
            f"The file has {len(data)} bytes; a batch's file may have {state.settings.batch_max_bytes}.",
            code="file_too_large",
        )
    return web.json_response(_keep(state, upload.filename, purpose, data).shown())


async def list_files(request: web.Request) -> web.Response:
    """GET /v1/files: newest first, in pages; `purpose` selects."""
    state, purpose = _state(request), request.query.get("purpose")
    return _page(request, [file for file in state.files.values() if purpose in (None, file.purpose)])


async def show_file(request: web.Request) -> web.Response:
    """GET /v1/files/{id}."""
    return web.json_response(_file(request).shown())


async def file_content(request: web.Request) -> web.Response:
    """GET /v1/files/{id}/content."""
    return web.Response(body=_file(request).data, content_type="application/octet-stream")


async def delete_file(request: web.Request) -> web.Response:
    """DELETE /v1/files/{id}."""
    file = _file(request)
    del request.app[STATE].files[file.id]
    return web.json_response({"id": file.id, "object": "file", "deleted": True})


async def create_batch(request: web.Request) -> web.Response:
    """POST /v1/batches: the job is recorded, and processed in the background."""
    state = _state(request)
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise ApiError(400, "We could not parse the JSON body of your request.") from None
    if body.get("endpoint") != _ENDPOINT or body.get("completion_window") != "24h":
        raise ApiError(400, f"A batch needs endpoint {_ENDPOINT!r} and completion_window '24h'.")
    metadata = body.get("metadata")
    if metadata is not None and (
        not isinstance(metadata, Mapping)
        or len(metadata) > _MOST_METADATA
        or not all(isinstance(value, str) and len(value) <= 512 for value in metadata.values())
    ):
        raise ApiError(400, "'metadata' takes 16 texts of at most 512 characters.", param="metadata")
    file = state.files.get(str(body.get("input_file_id")))
    if file is None or file.purpose != "batch":
        raise ApiError(400, f"No batch file {body.get('input_file_id')!r}.", param="input_file_id")
    place = len(state.batches)
    batch = Batch(
        id=f"batch_{number(state.settings.seed, 'batch', place):016x}",
        endpoint=_ENDPOINT,
        input_file_id=file.id,
        metadata=metadata,
        created_at=int(time.time()),
    )
    state.batches[batch.id] = batch
    state.stats.batches += 1
    task = asyncio.create_task(_work(state, batch, file, rejected=place < state.settings.batch_rejects))
    state.tasks.add(task)
    task.add_done_callback(state.tasks.discard)
    return web.json_response(batch.shown())


async def list_batches(request: web.Request) -> web.Response:
    """GET /v1/batches: newest first, in pages."""
    return _page(request, list(_state(request).batches.values()))


async def show_batch(request: web.Request) -> web.Response:
    """GET /v1/batches/{id}."""
    return web.json_response(_batch(request).shown())


async def cancel_batch(request: web.Request) -> web.Response:
    """POST /v1/batches/{id}/cancel: finished answers stay in the output file."""
    batch = _batch(request)
    if batch.status not in {"validating", "in_progress", "finalizing", "cancelling"}:
        raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
    _reach(batch, "cancelling")
    return web.json_response(batch.shown())


async def _work(state: State, batch: Batch, file: StoredFile, *, rejected: bool) -> None:
    """From validating to the end, in `batch_s` seconds or as long as the answers take."""
    start, seconds = time.monotonic(), state.settings.batch_s
    lines = await asyncio.to_thread(_lines, file.data)
    await _wait(batch, start + 0.1 * seconds)
    batch.errors = _rejection() if rejected else _mistakes(lines, state.settings)
    if batch.errors:
        _reach(batch, "failed")
        return
    batch.total = len(lines)
    if batch.status == "validating":
        _reach(batch, "in_progress")
    good, bad, expired = await _answers(state, batch, lines)
    await _wait(batch, start + 0.9 * seconds)
    if batch.status == "in_progress":
        _reach(batch, "finalizing")
    await _wait(batch, start + seconds)
    batch.output_file_id = _result(state, batch, "output", good)
    batch.error_file_id = _result(state, batch, "error", bad)
    _reach(batch, "cancelled" if batch.status == "cancelling" else "expired" if expired else "completed")


async def _answers(
    state: State, batch: Batch, lines: Sequence[Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """The lines of the output and of the error file, and how many items expired."""
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    expired = 0
    for done, line in enumerate(lines):
        if done % _LINES_AT_ONCE == 0:
            await asyncio.sleep(0)
        if batch.status == "cancelling":
            break
        response = _item(state, line["body"])
        row = {"id": f"batch_req_{number(batch.id, done):016x}", "custom_id": line["custom_id"]}
        if response is None:
            expired += 1
            message = "This request could not be executed before the completion window expired."
            bad.append(row | {"response": None, "error": {"code": "batch_expired", "message": message}})
        elif response["status_code"] == 200:
            batch.completed += 1
            good.append(row | {"response": response, "error": None})
        else:
            batch.failed += 1
            bad.append(row | {"response": response, "error": None})
    return good, bad, expired


def _item(state: State, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """One item's response, or None where it expires."""
    settings, stats = state.settings, state.stats
    key = request_hash(body)
    stats.asked[key] += 1
    stats.batch_requests += 1
    shares = {"batch_expired": settings.batch_expired, "batch_failed": settings.batch_failed}
    fault = choose(shares, uniform(settings.seed, key, stats.asked[key], "batch"))
    if fault is not None:
        stats.faults[fault] += 1
    if fault == "batch_expired":
        return None
    value: Mapping[str, Any]
    try:
        if fault == "batch_failed":
            raise ApiError(500, "The server had an error while processing your request.")
        prompt_tokens = check_request(body)
        check_fields(body, settings)
        value = answer(body, key, settings, prompt_tokens=prompt_tokens)
        status = 200
    except ApiError as error:
        value, status = error.body(), error.status
    if fault is None:
        count_answer(state, key, value, status)
    return {"status_code": status, "request_id": f"req_{key[:16]}", "body": value}


def _lines(data: bytes) -> list[Any]:
    """Each line's value; None for a line that is not JSON."""
    found: list[Any] = []
    for line in data.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append(None)
    return found


def _mistakes(lines: Sequence[Any], settings: FakeSettings) -> list[dict[str, Any]]:
    """The mistakes of a batch file, each with its code and its line, counted from 1."""
    if not lines:
        return [_mistake("empty_batch", "The batch has no requests.")]
    if len(lines) > settings.batch_max_requests:
        text = f"The file has {len(lines)} requests; a batch may have {settings.batch_max_requests}."
        return [_mistake("too_many_tasks", text)]
    found = []
    seen: set[str] = set()
    for place, line in enumerate(lines, start=1):
        mistake = _line_mistake(line, seen, lines[0], settings)
        if mistake is not None:
            found.append(_mistake(*mistake, line=place))
    return found


def _line_mistake(line: Any, seen: set[str], first: Any, settings: FakeSettings) -> tuple[str, str] | None:
    if not isinstance(line, Mapping) or not isinstance(line.get("body"), Mapping):
        return "invalid_json_line", "This line is not a JSON object with a body."
    custom = line.get("custom_id")
    if not isinstance(custom, str) or not custom:
        return "missing_required_parameter", "This line has no custom_id."
    if custom in seen:
        return "duplicate_custom_id", f"The custom_id {custom!r} comes more than once."
    seen.add(custom)
    if line.get("method") != "POST" or line.get("url") != _ENDPOINT:
        return "mismatched_url", f"Every line must be a POST to {_ENDPOINT}."
    model = line["body"].get("model")
    if model != first["body"].get("model"):
        return "mismatched_model", "Every line must name the same model."
    try:
        check_model(str(model), settings)
    except ApiError as error:
        return "model_not_found", error.message
    return None


def _rejection() -> list[dict[str, Any]]:
    return [
        _mistake("token_limit_exceeded", "Enqueued token limit reached. Please try again once some are done.")
    ]


def _mistake(code: str, message: str, *, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}


async def _wait(batch: Batch, until: float) -> None:
    """Wait until then, or until the batch is cancelled."""
    while batch.status != "cancelling" and (rest := until - time.monotonic()) > 0:
        await asyncio.sleep(min(rest, _CANCEL_POLL_S))


def _reach(batch: Batch, status: str) -> None:
    batch.status = status
    batch.times[status] = int(time.time())


def _result(state: State, batch: Batch, kind: str, rows: list[dict[str, Any]]) -> str | None:
    """Store the rows as a file, in another order than the requests', as the API does; None for no rows."""
    if not rows:
        return None
    rows.sort(key=lambda row: str(row["id"]))
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return _keep(state, f"{batch.id}_{kind}.jsonl", "batch_output", data).id


def _keep(state: State, name: str, purpose: str, data: bytes) -> StoredFile:
    identity = f"file-{number(state.settings.seed, 'file', len(state.files), name):016x}"
    while identity in state.files:  # after a deletion the count alone is not unique
        identity = f"file-{number(identity):016x}"
    state.files[identity] = StoredFile(identity, name, purpose, data, int(time.time()))
    return state.files[identity]


def _page(request: web.Request, records: list[_Record]) -> web.Response:
    """Newest first; `limit` of them after the one whose id is `after`."""
    try:
        limit = int(request.query.get("limit", 20))
    except ValueError:
        limit = 0
    if not 1 <= limit <= 10_000:
        raise ApiError(400, "'limit' must be a whole number from 1 to 10000.", param="limit")
    ordered = records[::-1]
    after = request.query.get("after")
    places = [place for place, record in enumerate(ordered) if record.id == after]
    if after and not places:
        raise ApiError(400, f"No record {after!r} to go on from.", param="after")
    start = places[0] + 1 if places else 0
    chosen = ordered[start : start + limit]
    return web.json_response(
        {
            "object": "list",
            "data": [record.shown() for record in chosen],
            "first_id": chosen[0].id if chosen else None,
            "last_id": chosen[-1].id if chosen else None,
            "has_more": start + limit < len(ordered),
        }
    )


def _state(request: web.Request) -> State:
    state = request.app[STATE]
    check_key(request, state.settings)
    return state


def _file(request: web.Request) -> StoredFile:
    file = _state(request).files.get(request.match_info["id"])
    if file is None:
        raise ApiError(404, f"No such File object: {request.match_info['id']}", param="id")
    return file


def _batch(request: web.Request) -> Batch:
    batch = _state(request).batches.get(request.match_info["id"])
    if batch is None:
        raise ApiError(404, f"No batch found with id '{request.match_info['id']}'.", param="id")
    return batch
