"""The command line at endpoints as they are: refusals, parameters, loopback and proxies, with real
servers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from data.errors import UniBindError
from kb_builder.ask.ledger import iter_entries
from kb_builder.fake_openai import FakeSettings, serve_fake
from pipeline.cli.main import app
from pipeline.doctor import examine
from pipeline.project import ProjectFile, load_project

# As little as the bundled model can be asked for.
LONE_TEXTS = 'describer = "local"\nn = 1\ngrounded = false\nnear_cosine = "off"\ncontrast_pairs = 0'
Serve = Callable[..., str]
ROOT = Path(__file__).parents[2]


@contextmanager
def served(settings: FakeSettings) -> Iterator[str]:
    """A rehearsal server in a thread of its own."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        async with serve_fake(settings) as url:
            started.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(120)
    yield started[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(120)
    loop.close()


@pytest.fixture
def server() -> Iterator[Serve]:
    """`server(refuses=("seed",))`: the base URL of a rehearsal server that runs until the test ends."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(served(FakeSettings(**settings)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five photos with a manifest, and an environment without a key and without proxies."""
    draw = np.random.default_rng(0)
    rows = ["uri,modality,category"]
    for number in range(5):
        pixels = draw.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"p{number}.png")
        rows.append(f"p{number}.png,image,thing")
    (tmp_path / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def project(folder: Path, samples: str, *, categories: str = 'describer = "fake"\nn = 2') -> Path:
    path = folder / "unibind.toml"
    path.write_text(
        f'name = "x"\n[data]\nmanifest = "manifest.csv"\n[describe.categories]\n{categories}\n'
        f"[describe.samples]\n{samples}\n",
        encoding="utf-8",
    )
    return path


def asking(url: str, more: str = "") -> str:
    return f'describer = "openai"\nmodel = "m"\nbase_url = "{url}"\napi_key_env = "UNIBIND_NONE"\n{more}'


def describe(path: Path) -> Result:
    return CliRunner().invoke(app, ["describe", "--project", str(path)])


def error_of(result: Result) -> str:
    """What a failed command says, as `main` prints it: a mistake of the user's, never one of ours."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, UniBindError), result.exception
    return f"error: {result.exception}"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"refuses": ("image",)}, "not a multimodal model"),
        ({"faults": {"policy": 1.0}}, "nothing is recorded as failed"),
        ({"refuses": ("seed",)}, 'parameters = { seed = "off" }'),
        ({"models": ("another",)}, "check `model`"),
    ],
)
def test_where_all_requests_are_refused_nothing_is_final(
    pictures: Path, server: Serve, settings: dict[str, object], says: str
) -> None:
    """Exit 1 and no entry; once the endpoint is corrected, the same command asks and ends with every text."""
    broken, whole = server(**settings), server()
    path = project(pictures, asking(broken))
    assert says in error_of(describe(path))
    assert says in error_of(describe(path))  # it is not skipped, either
    kb = load_project(path).kb
    assert [entry for entry in list(iter_entries(kb)) if entry.provider == "openai"] == []
    project(pictures, asking(whole))
    done = describe(path)
    assert done.exit_code == 0 and "describe-samples: skipped" not in done.output
    asked = [entry for entry in list(iter_entries(kb)) if entry.provider == "openai"]
    assert len(asked) >= 5 and all(entry.answer for entry in asked)


def test_the_advice_of_every_refusal_leads_to_answers(
    pictures: Path, server: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes what each message says ends with a project that works, checked, explained and
    re-parsed."""
    url = server(refuses=("max_tokens", "temperature", "top_p", "seed", "response_format"))
    sections = {"describe.categories": "", "describe.samples": ""}
    for _ in range(12):
        path = project(
            pictures,
            asking(url, sections["describe.samples"]),
            categories=asking(
                url, f"n = 4\nitems = 2\ncontrast_pairs = 0\n{sections['describe.categories']}"
            ),
        )
        result = describe(path)
        if result.exit_code == 0:
            break
        advice = re.search(r"write `(parameters = .*?)` under \[([\w.]+)\]", error_of(result))
        assert advice is not None, result.output
        assert sections[advice[2]] != advice[1]
        sections[advice[2]] = advice[1]
    written = tomllib.loads(sections["describe.categories"])["parameters"]
    assert written == {
        "temperature": "off",
        "top_p": "off",
        "max_tokens": "max_completion_tokens",
        "seed": "off",
        "response_format": "off",
    }
    assert "max_tokens sent as max_completion_tokens" in caplog.text
    for command in (["kb", "verify"], ["kb", "reparse"], ["describe", "--dry-run"]):
        checked = CliRunner().invoke(app, [*command, "--project", str(path)])
        assert checked.exit_code == 0, checked.output
        assert "error" not in checked.output.replace("0 errors", "")
    kb = load_project(path).kb
    entry = next(entry for entry in list(iter_entries(kb)) if '"names"' in entry.request)
    rows = CliRunner().invoke(
        app,
        [
            "kb",
            "sql",
            f"select row_id from v_descriptions where request_key = '{entry.key}'",
            "-p",
            str(path),
        ],
    )
    row = rows.output.splitlines()[2][:12]
    told = CliRunner().invoke(app, ["kb", "explain", row, "--project", str(path)])
    assert "max_tokens is sent as" in told.output and "max_completion_tokens" in told.output


def test_the_same_answers_are_found_again(pictures: Path, server: Serve) -> None:
    """A line that changes nothing of the final request asks nothing anew."""
    url = server()
    path = project(pictures, asking(url))
    assert describe(path).exit_code == 0
    before = len(list(iter_entries(load_project(path).kb)))
    for more in ('parameters = { top_p = "top_p" }', "parameters = {}", "max_answer_mb = 1"):
        project(pictures, asking(url, more))
        assert describe(path).exit_code == 0
        assert len(list(iter_entries(load_project(path).kb))) == before
    project(pictures, asking(url, 'parameters = { extra = { reasoning_effort = "low" } }'))
    assert describe(path).exit_code == 0
    assert len(list(iter_entries(load_project(path).kb))) > before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('parameters = { topp = "off" }', "parameters.topp: unknown key; did you mean `top_p`?"),
        ("parameters = { temperature = 0.7 }", "a value belongs into the section itself"),
        ('parameters = { top_p = "seed" }', "`top_p` and `seed` would both be sent as `seed`"),
        ('parameters = { seed = "model" }', "`seed` cannot be sent as `model`"),
        ('parameters = { extra = { model = "x" } }', "set `model` in the section itself"),
        ("parameters = { extra = { messages = [] } }", "may not hold `messages`"),
        ("parameters = { extra = { stream = true } }", "answers are read whole"),
        ("parameters = { extra = { temperature = 1 } }", "`extra.temperature` hides `temperature`"),
        ("parameters = { extra = { max_completion_tokens = 9 } }", "would be a second limit"),
        ('parameters = { extra = { a = { api_key = "planted" } } }', "`a.api_key` looks like a secret"),
        ("parameters = { extra = { a = [nan] } }", "JSON has no such number"),
        ("parameters = { extra = { a = 2026-01-01 } }", "JSON has no such value"),
        ('parameters = "off"', "must be a table"),
        ('base_url = ["http://a/v1", "http://a/v1/"]', "names the same address twice"),
        ("base_url = []", "is an empty list"),
        ('base_url = ["http://user:planted@a/v1"]', "must hold no user name"),
        ("base_url = 7", "must be an address, or a list of them"),
    ],
)
def test_mistakes_in_the_project_file_are_one_line_each(pictures: Path, line: str, says: str) -> None:
    """Which key, what is wrong, and how to write it; no secret is repeated."""
    path = project(pictures, f'describer = "openai"\nmodel = "m"\n{line}')
    said = error_of(describe(path))
    assert says in said
    assert "1 mistake\n" in said and "planted" not in said


def test_a_gguf_file_is_found_beside_the_project_file(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever the command is given; what is no such file is one line."""
    (pictures / "models").mkdir()
    (pictures / "models" / "m.gguf").write_bytes(b"GGUF\x03\x00")
    local = 'describer = "local"\nmodel = "models/m.gguf"'
    path = project(pictures, 'describer = "facts"', categories=local)
    monkeypatch.chdir(pictures / "models")
    assert f"{pictures / 'models' / 'm.gguf'}: is cut off within" in error_of(describe(path))
    checks = {check.what: check for check in examine(load_project(path))}
    assert not checks["describer"].ok and "is cut off" in checks["describer"].detail


def loaded(folder: Path, url: str) -> ProjectFile:
    return load_project(project(folder, 'describer = "facts"', categories=asking(url)))


def test_doctor_says_which_proxy_is_used_for_what(
    pictures: Path, server: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loopback goes through none, another host through the one that is set; no password is shown."""
    for name in (
        "no_proxy",
        "NO_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:planted@127.0.0.1:9")
    checks = examine(loaded(pictures, server()))
    told = {check.what: check.to_text() for check in checks}
    assert "http://127.0.0.1:9 (HTTP_PROXY); directly: loopback (always)" in told["proxy"]
    assert "answers (200)" in told["endpoint"] and "proxy" not in told["endpoint"]
    away = {check.what: check.to_text() for check in examine(loaded(pictures, "http://llm.example/v1"))}
    assert "through the proxy http://127.0.0.1:9 (HTTP_PROXY)" in away["endpoint"]
    assert not any("planted" in line for line in [*told.values(), *away.values()])
    monkeypatch.delenv("HTTP_PROXY")
    assert "none is set" in next(check.detail for check in examine(None) if check.what == "proxy")


def test_doctor_ends_whatever_an_endpoint_sends(pictures: Path, server: Serve) -> None:
    """Every one of several addresses is looked at, and what differs from the usual request is told."""
    one, two = server(), server(models=("another",))
    path = project(
        pictures,
        'describer = "facts"',
        categories=asking(one).replace(f'"{one}"', f'["{one}", "{two}"]') + 'parameters = { seed = "off" }',
    )
    checks = examine(load_project(path))
    assert sum(check.what == "endpoint" and check.ok for check in checks) == 2
    assert [check.ok for check in checks if check.what == "model"] == [False, False]
    assert "no seed" in next(check.detail for check in checks if check.what == "parameters")


def test_the_bundled_model_is_asked_though_a_proxy_is_set(pictures: Path) -> None:
    """As in a company: HTTP_PROXY, no NO_PROXY, and nobody at the proxy's port."""
    path = project(pictures, 'describer = "none"', categories=LONE_TEXTS)
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    command = [str(Path(sys.executable).with_name("unibind")), "describe", "--project", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert any(entry.answer for entry in list(iter_entries(load_project(path).kb)))
