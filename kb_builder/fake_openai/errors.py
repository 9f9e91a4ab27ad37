"""An error as the API says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TYPES = {401: "invalid_request_error", 429: "rate_limit_error", 408: "timeout"}


@dataclass(eq=False)
class ApiError(Exception):
    """A status and a message, with the fields that OpenAI puts beside it."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = self.type or _TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code},
        }
