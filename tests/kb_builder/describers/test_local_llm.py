"""The bundled LLM, for real: a few short answers."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import InputError, RunError
from data.files import hash_file
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.request import Request
from kb_builder.describe.prompts import category_library, continues_openings, contrast_library
from kb_builder.describers import local_llm
from kb_builder.describers.choose import make_describer, row_settings
from kb_builder.describers.local_llm import local_clients
from kb_builder.settings import DescribeCategories


@pytest.fixture(scope="module")
def request_to_it() -> Request:
    """A short request to the bundled model."""
    client = local_clients()[0]
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
        client = make_describer(DescribeCategories())
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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's file as others may have it: copied, without its template, with another name,
    torn."""
    gguf = local_llm.model_file()
    assert gguf is not None
    folder = tmp_path_factory.mktemp("gguf")
    raw = gguf.read_bytes()
    (folder / "copy.gguf").write_bytes(raw)
    (folder / "base.gguf").write_bytes(raw.replace(b"tokenizer.chat_template", b"tokenizer.chat_nothing1", 1))
    (folder / "chat.gguf").write_bytes(raw.replace(b"Smollm2 135M 8k", b"Another 135M 8k", 1))
    (folder / "torn.gguf").write_bytes(raw[:-1000])
    heads = b"llama.attention.head_count\x04\x00\x00\x00"
    (folder / "heads.gguf").write_bytes(raw.replace(heads + b"\x09", heads + b"\x07", 1))
    return folder


def test_a_file_is_known_by_its_content(files: Path, tmp_path: Path) -> None:
    """A copy of the bundled model is the bundled model; another content is another identity, whatever its
    path."""
    bundled = local_llm.find(None)
    assert local_llm.find(str(files / "copy.gguf")) == bundled
    chat = local_llm.find(str(files / "chat.gguf"))
    moved = tmp_path / "moved.gguf"
    moved.write_bytes((files / "chat.gguf").read_bytes())
    assert local_llm.find(str(moved)).identity == chat.identity != bundled.identity
    assert chat.name.startswith("another-135m-8k") and str(files) not in chat.identity
    moved.write_bytes((files / "base.gguf").read_bytes())
    assert local_llm.find(str(moved)).identity != chat.identity
    settings = DescribeCategories(model=str(files / "chat.gguf"))
    assert row_settings(settings)["model"] == chat.identity


def test_a_file_is_asked_as_it_can_be(files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a template as an endpoint is; without one it goes on from an opening, with nothing before it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, openings in (("base", True), ("chat", False)):
        settings = DescribeCategories(model=str(files / f"{name}.gguf"))
        assert continues_openings(settings) is openings
        assert (contrast_library(settings, tmp_path) is None) is openings
        library = category_library(settings, tmp_path)
        assert all((prompt.opening is not None) is openings for prompt in library.prompts)
        [client] = local_clients(settings.model)
        prefill = (("assistant", "In a photograph, the dog looks"),) if openings else ()
        request = Request(
            endpoint=client.endpoint,
            model=client.model,
            messages=(("user", "Describe the dog."), *prefill),
            temperature=0.5,
            top_p=0.9,
            max_tokens=8,
            seed=1,
            sample_index=0,
        )

        async def ask(client: ChatClient = client, request: Request = request) -> str:
            try:
                return (await client.answer(request)).body
            finally:
                await client.close()

        body = json.loads(asyncio.run(ask()))
        assert body["model"] == client.model
        assert body["choices"][0]["message"]["content"].startswith("In a photograph" if openings else "")
        # Nothing but the question and the opening where there is no template; else the template's own words,
        # too.
        assert (body["usage"]["prompt_tokens"] < 20) is openings


@pytest.mark.parametrize("name", ["torn", "heads"])
def test_a_file_that_cannot_be_loaded_is_one_line(
    files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """It is tried in a process of its own, which may die of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RunError, match=r"llama\.cpp cannot use this file") as caught:
        local_llm.serve(local_llm.find(str(files / f"{name}.gguf")))
    assert "\n" not in str(caught.value) and f"{name}.gguf" in str(caught.value)
    assert not (tmp_path / "unibind" / "gguf").exists()


def test_what_names_no_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is missing is a mistake; an endpoint's model, left over, is not heard, which is said."""
    with pytest.raises(InputError, match="no such GGUF file"):
        make_describer(DescribeCategories(model=str(tmp_path / "none.gguf")))
    with pytest.raises(InputError, match="is a folder"):
        make_describer(DescribeCategories(model=str(tmp_path)))
    assert make_describer(DescribeCategories(model="gpt-4.1-mini")).model == local_llm.MODEL
    assert "'gpt-4.1-mini' is not a GGUF file: using the bundled model" in caplog.text
    (tmp_path / "text.gguf").write_text("hello", encoding="utf-8")
    with pytest.raises(InputError, match="does not begin with GGUF"):
        make_describer(DescribeCategories(model=str(tmp_path / "text.gguf")))
