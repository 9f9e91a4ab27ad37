"""Fake describer for tests and rehearsals: no model, no network, equal answers to equal requests."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from kb_builder.ask.request import Messages, Reply, Request, request_key, words

_TONE = [
    "bright",
    "dull",
    "smooth",
    "rough",
    "pale",
    "dark",
    "heavy",
    "light",
    "narrow",
    "broad",
    "soft",
    "hard",
]
_PART = [
    "edge",
    "side",
    "outline",
    "surface",
    "middle",
    "rim",
    "face",
    "tip",
    "body",
    "base",
    "corner",
    "top",
]
_PLACE = [
    "by day",
    "at night",
    "from afar",
    "up close",
    "in the rain",
    "on a shelf",
    "under a lamp",
    "at rest",
]
_NAME = re.compile(r'"([^"]+)"')


def fake_text(messages: Messages, key: str) -> str:
    """One sentence that continues the opening, or names the first quoted text of the question."""
    draw = random.Random(key)
    role, content = messages[-1][0], words(messages[-1][1])
    named = _NAME.search(content)
    opening = content if role == "assistant" else f"The {named.group(1) if named else 'thing'} has"
    one, two = draw.sample(_TONE, 2), draw.sample(_PART, 2)
    return f"{opening} a {one[0]} {two[0]} and a {one[1]} {two[1]} {draw.choice(_PLACE)}."


def fake_answer(messages: Messages, key: str, *, model: str) -> dict[str, Any]:
    """A chat completion as a server would send it."""
    text = fake_text(messages, key)
    return {
        "id": f"fake-{key[:12]}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {
            "prompt_tokens": sum(len(words(content).split()) for _, content in messages),
            "completion_tokens": len(text.split()),
        },
    }


class FakeDescriber:
    """The `Describer` behind `describer = "fake"`."""

    provider = "fake"
    source = "fake"
    endpoint = "fake:"
    model = "fake-1"

    async def answer(self, request: Request) -> Reply:
        """The fake's answer to a request."""
        return Reply(json.dumps(fake_answer(request.messages, request_key(request), model=self.model)))

    async def close(self) -> None:
        """Nothing to close."""
