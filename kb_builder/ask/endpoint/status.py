"""The error class of an answer: by status, error code, and the body of status 200."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from data.errors import DescriberError, RequestError, RunError, ThrottledError, TransientError
from data.show import shorten

# A refusal (message, `param`, code) -> what to write into the project file, or None.
Remedy = Callable[[str, str | None, str], str | None]

_TRANSIENT = {408, 409, 425}
_ROW = {400, 413, 422, 501}  # only this request is wrong; other 4xx concern all requests
_OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_NO_MODEL = {"model_not_found", "invalid_model", "model_not_supported"}
_YEAR_S = 366 * 86_400.0

# Some endpoints answer a wrong key with 400.
_BAD_KEY = re.compile(
    r"api[ _-]?key[\s\w:'\"`*.…-]{0,80}?\b"
    r"(?:not valid|invalid|incorrect|missing|expired|revoked|required|not found)"
    r"|(?:invalid|incorrect|expired|missing|wrong|no|revoked) (?:or missing )?"
    r"(?:api[ _-]?key|auth\w* token|bearer)"
    r"|api_key_invalid|invalid_api_key|authentication_error|unauthenticated",
    re.IGNORECASE,
)
_OF_CONTENT = re.compile(
    r"content[ _-]?(?:policy|filter|management)|responsible ?ai|safety (?:system|policy|filter|setting)"
    r"|moderation|context[ _-]?length|maximum context|context (?:window|size)|prompt is too long|too large"
    r"|too many tokens",
    re.IGNORECASE,
)


def error_for(
    status: int, message: str, *, code: str = "", retry_after: float | None = None, remedy: str | None = None
) -> TransientError | ThrottledError | RequestError | RunError:
    """The error class of an HTTP status and the vendor's error code.

    `remedy`: what to write into the project file, if the refusal names a parameter that was sent.
    """
    if code in _OUT_OF_MONEY:
        return RunError(f"{message}; raise the account's quota, then run again: answered requests are kept")
    if code in _NO_MODEL or status == 404:
        return RunError(f"{message}; check `model` and `base_url` in the project file")
    if status == 429:
        return ThrottledError(message, retry_after=retry_after)
    if status in _TRANSIENT or (status >= 500 and status not in _ROW) or status < 200:
        return TransientError(message)
    if status in {401, 403} or (status in _ROW and _BAD_KEY.search(f"{code} {message}")):
        return RunError(f"{message}; check the API key (the variable named by `api_key_env`) and its rights")
    if status in _ROW and remedy is not None:
        return RunError(f"{message}; {remedy}")
    if status in _ROW:
        return RequestError(
            message, of_content=status == 413 or bool(_OF_CONTENT.search(f"{code} {message}"))
        )
    return RunError(message)


def check_body(body: str, *, where: str, remedy: Remedy = lambda said, param, code: None) -> None:
    """Raise the error in a body of status 200: broken JSON, an error object, or no choices."""
    try:
        value = json.loads(body)
    except ValueError:
        raise TransientError(f"{where}: the answer is not JSON: {shorten(body)!r}", maybe_paid=True) from None
    except RecursionError:
        raise TransientError(
            f"{where}: the answer is JSON that is nested without end: {shorten(body, 60)!r}", maybe_paid=True
        ) from None
    if not isinstance(value, dict):
        raise TransientError(f"{where}: the answer is not a JSON object: {shorten(body)!r}", maybe_paid=True)
    error = value.get("error")
    if error:
        detail = error if isinstance(error, dict) else {"message": str(error)}
        code = detail.get("code")
        status = code if isinstance(code, int) else 500  # an error in spite of status 200
        said, param = words_of(detail.get("message") or error), detail.get("param")
        raise error_for(
            status,
            f"{where}: {shorten(said)}",
            code=str(code or ""),
            remedy=remedy(said, param if isinstance(param, str) else None, str(code or "")),
        )
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise TransientError(f"{where}: the answer has no choices", maybe_paid=True)
    if not isinstance(choices[0].get("message"), dict):
        raise TransientError(f"{where}: the answer's first choice has no message", maybe_paid=True)


def retry_after(headers: Any) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or an HTTP date), or None.

    A date counts from the answer's own `date` header, if it has one: the clock here may be wrong. Ignored are
    values that are neither, infinity, and more than a year. A date in the past gives 0.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(value) - _moment(headers)).total_seconds()
            except (ValueError, TypeError, OverflowError):  # neither a number nor a date with its zone
                continue
        if math.isfinite(seconds) and seconds <= _YEAR_S:
            return max(0.0, seconds)
    return None


def _moment(headers: Any) -> datetime:
    """When an answer was sent, by the server's clock; now, where it does not say."""
    try:
        sent = parsedate_to_datetime(headers.get("date") or "")
    except (ValueError, TypeError, OverflowError):
        return datetime.now(UTC)
    return sent if sent.tzinfo is not None else datetime.now(UTC)


def words_of(said: Any) -> str:
    """A server's message as text; some send an object instead."""
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str)


def renamed(error: DescriberError, message: str) -> DescriberError:
    """The same error with another message."""
    if isinstance(error, TransientError):
        return TransientError(message, maybe_paid=error.maybe_paid)
    if isinstance(error, ThrottledError):
        return ThrottledError(message, retry_after=error.retry_after, limits=error.limits)
    if isinstance(error, RequestError):
        return RequestError(message, of_content=error.of_content)
    return type(error)(message)
