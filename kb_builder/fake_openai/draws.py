"""Deterministic random numbers, which depend only on their arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from data.files import hash_json


def request_hash(body: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a request's body; headers do not count."""
    return hash_json(body)


def number(*parts: object) -> int:
    """A number of 64 bits that depends on the parts alone."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def uniform(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return number(*parts) / 2.0**64


def choose(shares: Mapping[str, float], draw: float) -> str | None:
    """The name in whose share a draw from [0, 1) falls, or None if it is beyond all shares."""
    reached = 0.0
    for name, share in shares.items():
        reached += share
        if draw < reached:
            return name
    return None
