"""The bundled LLM, for real: a few short answers."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace

import pytest

from data.files import hash_file
from kb_builder import local_llm
from kb_builder.client import local_client
from kb_builder.request import Request
from kb_builder.settings import DescribeCategories


@pytest.fixture(scope="module")
def request_to_it() -> Request:
    """A short request to the bundled model."""
    client = local_client()
    return Request(
        endpoint=client.endpoint,
        model=client.model,
        messages=(
            ("user", "Describe the dog: how it looks."),
            ("assistant", "In a photograph, the dog looks"),
        ),
        temperature=DescribeCategories().temperature,
        top_p=DescribeCategories().top_p,
        max_tokens=16,
        seed=5,
        sample_index=0,
    )


def bodies(requests: list[Request]) -> list[str]:
    """The answers to requests that are asked all at once, as they came."""

    async def ask() -> list[str]:
        client = local_client()
        try:
            return [reply.body for reply in await asyncio.gather(*map(client.answer, requests))]
        finally:
            await client.close()

    return asyncio.run(ask())


def answers(requests: list[Request]) -> list[str]:
    """The texts in them."""
    return [json.loads(body)["choices"][0]["message"]["content"] for body in bodies(requests)]


def test_it_goes_on_from_the_opening_and_repeats_itself(request_to_it: Request) -> None:
    """Same request, same text, alone or among others, whatever came before; another seed, another text."""
    [alone] = answers([request_to_it])
    among = answers([replace(request_to_it, seed=seed) for seed in (1, 2, 5, 3)])
    assert alone.startswith("In a photograph, the dog looks ")
    assert among[2] == alone
    assert len(set(among)) > 1


def test_its_identity_is_the_model_not_the_port(request_to_it: Request) -> None:
    """The key of a request holds the file's hash; neither the loopback port nor a path of this machine."""
    gguf = local_llm.model_file()
    assert gguf is not None
    assert request_to_it.endpoint == f"local:smollm2-135m-instruct-q4_1:{hash_file(gguf)[:16]}"
    [body] = bodies([request_to_it])
    assert json.loads(body)["model"] == local_llm.MODEL
    assert str(gguf.parent) not in body
    found = local_llm.find(None)
    assert local_llm.serve(found).startswith("http://127.0.0.1:")
    assert local_llm.serve(found) == local_llm.serve(found)


def test_waiting_threads_do_not_spin(request_to_it: Request) -> None:
    """The setting that keeps answers coming on a busy machine is in place once the server runs."""
    answers([request_to_it])
    assert "GOMP_SPINCOUNT" in os.environ
