"""The fake describer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from kb_builder.ask.endpoint.status import check_body
from kb_builder.ask.request import Request
from kb_builder.describers.fake import FakeDescriber
from kb_builder.parse.answers import parse_answer, read_answer

REQUEST = Request("fake:", "fake-1", (("user", "?"), ("assistant", "The dog has")), None, None, None, 1, 0)


def test_the_same_request_has_the_same_answer() -> None:
    """Deterministic by request, different between requests, and a body that the parser reads."""

    def text(request: Request) -> str | None:
        body = asyncio.run(FakeDescriber().answer(request)).body
        check_body(body, where="fake")
        answer = read_answer(body)
        assert answer.text is not None and json.loads(body)["usage"]["completion_tokens"] > 5
        return parse_answer(answer, opening="The dog has")[0].text

    texts = [text(replace(REQUEST, seed=seed)) for seed in range(20)]
    assert len(set(texts)) == 20 and None not in texts
    assert texts == [text(replace(REQUEST, seed=seed)) for seed in range(20)]
