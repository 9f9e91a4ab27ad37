"""`unibind fake-openai`: a fake of OpenAI's API on loopback, to test runs without cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from data.errors import InputError


def fake_openai(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 0,
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each answer.")] = 0.0,
    jitter: Annotated[float, typer.Option(min=0, help="Maximum random delay on top, in seconds.")] = 0.0,
    faults: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that fail, over all kinds of fault.")
    ] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHARE", help="Share of one kind of fault; an unknown name lists them. Repeatable."
        ),
    ] = None,
    duplicate_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of texts that repeat an earlier one.")
    ] = 0.0,
    refusal_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that the model declines.")
    ] = 0.0,
    retry_after: Annotated[float, typer.Option(min=0, help="Retry-After of a 429, in seconds.")] = 1.0,
    hang: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds before a hanging connection is closed; default: never."),
    ] = None,
    rpm: Annotated[
        int | None, typer.Option(min=1, help="Limit of requests per minute, with headers.")
    ] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Limit of tokens per minute, with headers.")] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Limit of concurrent requests; more get 429.")
    ] = None,
    quota: Annotated[
        int | None, typer.Option(min=0, help="Requests until every further one gets 429 insufficient_quota.")
    ] = None,
    slow_start: Annotated[float, typer.Option(min=0, help="Seconds of 503 after the start.")] = 0.0,
    outage: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM:TO", help="Answer 503 in these seconds after the start. Repeatable."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="The variable that holds the only accepted key.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A known model; default: any. Repeatable.")] = None,
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD", help="A request field to refuse; `image` refuses pictures. Repeatable."
        ),
    ] = None,
    batch_seconds: Annotated[float, typer.Option(min=0, help="Duration of a batch.")] = 1.0,
    batch_expired: Annotated[
        float, typer.Option(min=0, max=1, help="Share of batch items that expire.")
    ] = 0.0,
    batch_failed: Annotated[float, typer.Option(min=0, max=1, help="Share of batch items that fail.")] = 0.0,
    batch_rejects: Annotated[int, typer.Option(min=0, help="Number of batches that fail first.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of texts and faults.")] = 0,
    log: Annotated[Path | None, typer.Option(help="Append a line per answer: request hash, status.")] = None,
) -> None:
    """Serve a fake OpenAI API on loopback, with faults on demand."""
    import asyncio

    from kb_builder.fake_openai import FakeSettings, all_faults
    from kb_builder.fake_openai.server import serve_until_stopped

    shares = all_faults(faults) if faults else {}
    for name, share in (_fault(text) for text in fault or []):
        shares[name] = shares.get(name, 0.0) + share
    if refusal_rate:
        shares["refusal"] = shares.get("refusal", 0.0) + refusal_rate
    _check_log(log)
    settings = FakeSettings(
        seed=seed,
        models=tuple(model or ()),
        refuses=tuple(refuse or ()),
        api_key=_key(api_key_env),
        latency_s=latency,
        jitter_s=jitter,
        faults=shares,
        duplicate_rate=duplicate_rate,
        retry_after_s=retry_after,
        hang_s=hang,
        rpm=rpm,
        tpm=tpm,
        max_in_flight=max_in_flight,
        quota_requests=quota,
        slow_start_s=slow_start,
        outages=tuple(_outage(text) for text in outage or []),
        batch_s=batch_seconds,
        batch_expired=batch_expired,
        batch_failed=batch_failed,
        batch_rejects=batch_rejects,
    )
    asyncio.run(serve_until_stopped(settings, port=port, log=log, say=lambda text: print(text, flush=True)))


def _check_log(log: Path | None) -> None:
    """Raise InputError now, not at the first answer, where the log cannot be written."""
    if log is None:
        return
    try:
        with log.open("ab"):
            return
    except OSError as error:
        raise InputError(
            f"--log {log}: cannot be written ({error.strerror}); name a file in an existing folder"
        ) from None


def _fault(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise InputError(f"--fault {text}: write it as NAME=SHARE, such as 500=0.1") from None


def _outage(text: str) -> tuple[float, float]:
    try:
        start, end = map(float, text.split(":"))
    except ValueError:
        raise InputError(f"--outage {text}: write it as FROM:TO in seconds, such as 10:25") from None
    return start, end


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key:
        raise InputError(f"--api-key-env: the variable {variable} is not set")
    return key
