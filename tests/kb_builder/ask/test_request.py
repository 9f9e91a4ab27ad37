"""Requests and their keys."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace

import pytest

from kb_builder.ask.request import Media, Request, derived_seed, request_from_json, request_json, request_key

REQUEST = Request(
    endpoint="https://example.org/v1",
    model="m",
    messages=(("system", "Be brief."), ("user", "Dog?")),
    temperature=0.9,
    top_p=0.95,
    max_tokens=40,
    seed=7,
    sample_index=3,
    extra={"stop": ["\n"], "min_p": 0.1},
)


def test_the_key_is_the_hash_of_canonical_json() -> None:
    """Another program can derive the key: SHA-256 of sorted, unspaced JSON of every field."""
    written = {
        "endpoint": "https://example.org/v1",
        "extra": {"min_p": 0.1, "stop": ["\n"]},
        "max_tokens": 40,
        "messages": [["system", "Be brief."], ["user", "Dog?"]],
        "model": "m",
        "protocol": "openai.chat.completions",
        "sample_index": 3,
        "seed": 7,
        "temperature": 0.9,
        "top_p": 0.95,
    }
    text = json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert request_json(REQUEST) == text
    assert request_key(REQUEST) == hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_extra_fields_does_not_matter() -> None:
    """Equal requests have one key however they were put together."""
    assert request_key(replace(REQUEST, extra={"min_p": 0.1, "stop": ["\n"]})) == request_key(REQUEST)


@pytest.mark.parametrize("name", [field.name for field in fields(Request)])
def test_every_field_changes_the_key(name: str) -> None:
    """No part of the final request is left out of its key."""
    other = {"messages": (("user", "Dog?"),), "extra": {}, "endpoint": "x", "model": "x", "protocol": "x"}
    changed = replace(REQUEST, **{name: other.get(name, 1)})
    assert request_key(changed) != request_key(REQUEST)


def test_derived_seeds_differ_and_fit() -> None:
    """Seeds differ by every part, are the same in every run, and fit the 31 bits that servers take."""
    seeds = {
        derived_seed(run, category, index) for run in (0, 1) for category in "ab" for index in range(100)
    }
    assert len(seeds) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert (
        derived_seed(0, "dog", 1) == int(hashlib.sha256(b'["0","dog","1"]').hexdigest()[:8], 16) & 0x7FFFFFFF
    )


@pytest.mark.parametrize("content", ["Dog?", ("What is this?", Media("image", "0" * 64, "png 64"))])
def test_a_stored_request_can_be_sent_again(content: str | tuple[str | Media, ...]) -> None:
    """What the ledger stores gives back the request, media named in it included."""
    request = replace(REQUEST, messages=(("system", "Be brief."), ("user", content)))
    assert request_from_json(request_json(request)) == request
