"""Which engine a project names, and what a project without one never loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import InputError, ProjectError
from pipeline.engines.choose import engine_of
from pipeline.engines.local import LocalEngine
from pipeline.engines.ray import cluster_address
from pipeline.project import RunSection, load_project
from pipeline.run.jobs import STAGES
from tests.planted import PROJECT

RUN = """
[run]
engine = "ray"
address = "127.0.0.1:6379"
same_hardware = true

[run.workers]
cpus = 4
gpus = 0.5
"""
WHOLE_RUN = """
import sys
from pathlib import Path
from tests.planted import plant_project
from pipeline.project import load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
project = load_project(plant_project(Path(sys.argv[1])))
run_stages(project, plan(project)[: plan(project).index("encode") + 1])
loaded = [name for name in sys.modules if name.partition(".")[0] in {"ray", "msgpack"}]
print(loaded, "pipeline.engines.ray" in sys.modules)
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "unibind.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_local_engine_loads_nothing_of_ray(tmp_path: Path) -> None:
    """A run to its vectors imports neither Ray nor the module that would."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", WHOLE_RUN, str(tmp_path / "project")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_the_local_engine_does_the_work_here() -> None:
    """In the order of the orders, taking them one by one."""
    taken = []

    def orders():  # type: ignore[no-untyped-def]
        for number in range(3):
            taken.append(number)
            yield number

    with engine_of(RunSection()) as engine:
        assert isinstance(engine, LocalEngine) and not engine.elsewhere
        results = engine.map(lambda given: (each * 2 for each in given), orders())
        assert next(results) == 0 and taken == [0]
        assert list(results) == [2, 4]


def test_the_engine_makes_no_stage_stale(tmp_path: Path) -> None:
    """No setting of a stage depends on `[run]`; the size of a part is one, but not at its default."""
    plain, other = (load_project(write(tmp_path, text)) for text in (PROJECT, PROJECT + RUN))
    assert other.running.engine == "ray" and other.running.workers.gpus == 0.5
    assert other.run == plain.run
    for stage in STAGES:
        assert stage.settings(plain) == stage.settings(other)
    (encode,) = (stage for stage in STAGES if stage.name == "encode")
    sized = PROJECT.replace("[encode]", "[encode]\ntexts_per_part = 7")
    assert encode.settings(load_project(write(tmp_path, sized))) != encode.settings(plain)
    timed = load_project(write(tmp_path, PROJECT.replace("[encode]", "[encode]\npart_seconds = 60")))
    assert encode.settings(timed)[0]["part_seconds"] == 60.0
    assert not {"texts_per_part", "part_seconds"} & encode.settings(plain)[0].keys()


def test_the_size_of_a_part_is_given_once(tmp_path: Path) -> None:
    """By seconds or by rows; by no seconds at all is a mistake."""
    for wrong, message in {
        "part_seconds = 0": "encode.part_seconds: ",
        "part_seconds = inf": "encode.part_seconds: ",
        "part_seconds = 60\nsamples_per_part = 9": "in place of `texts_per_part` and `samples_per_part`",
    }.items():
        with pytest.raises(ProjectError) as caught:
            load_project(write(tmp_path, PROJECT.replace("[encode]", f"[encode]\n{wrong}")))
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('[run]\nengin = "ray"', "run.engin: unknown key; did you mean `engine`?"),
        ('[run]\nengine = "dask"', "run.engine: 'dask' is not"),
        ("[run.workers]\ncpus = 0", "run.workers.cpus: "),
        ('[running]\nengine = "ray"', "running: unknown key"),
    ],
)
def test_mistakes_in_the_section_are_named(tmp_path: Path, wrong: str, message: str) -> None:
    """With the key as it stands in the file."""
    with pytest.raises(ProjectError) as caught:
        load_project(write(tmp_path, f"{PROJECT}\n{wrong}\n"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("address", "mode", "message"),
    [
        (None, None, r"names no cluster: .*ray start --head"),
        ("auto", None, "must be written as HOST:PORT"),
        ("local", None, "must be written as HOST:PORT"),
        ("ray://head:10001", None, "must be written as HOST:PORT"),
        ("head:6379", None, "lets anyone who reaches it run programs"),
        ("head:6379", "disabled", "lets anyone who reaches it run programs"),
    ],
)
def test_a_cluster_that_is_not_named_or_not_guarded_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str | None, mode: str | None, message: str
) -> None:
    """No cluster is ever started silently, and none beyond this machine is used without a token."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(InputError, match=message), engine_of(RunSection(engine="ray", address=address)):
        pytest.fail("an engine without a cluster")


def test_a_name_that_begins_like_loopback_is_not_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of this machine needs no token; a name below `127.` may be anybody's."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert cluster_address("127.0.0.2:6379") == "127.0.0.2:6379"
    assert cluster_address("[::1]:6379") == "[::1]:6379"
    for address in ("127.example.com:6379", "0.0.0.0:6379"):
        with pytest.raises(InputError, match="lets anyone who reaches it run programs"):
            cluster_address(address)
