"""What every test shares: nothing may reach beyond this machine, and Ctrl-C works."""

from __future__ import annotations

import atexit
import gc
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from data.environment import cores
from kb_builder.ask import ledger
from tests.once import once

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

# Looking for cyclic garbage took a tenth of the tests' CPU: for every 700 new objects, and now and then among
# the millions of all libraries.
gc.set_threshold(20_000, *gc.get_threshold()[1:])

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # set before torch is imported, and for every process of a test
    _share = max(1, cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(_share)


def _in_memory(folder: Path = Path("/dev/shm")) -> bool:
    """Whether a folder is a file system in memory that has, and a machine that has, 4 GiB to spare."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
        known = Path("/proc/meminfo").read_text("utf-8").split("MemAvailable:")[1]
        about = os.statvfs(folder)
    except (OSError, IndexError):
        return False
    room = min(about.f_bavail * about.f_frsize, int(known.split()[0]) * 1024)
    kind = next((kind for _, place, kind, *_ in mounts if place == str(folder)), "")
    usable = os.access(folder, os.W_OK | os.X_OK) and not about.f_flag & os.ST_NOEXEC
    return kind == "tmpfs" and usable and room >= 4 * 2**30


# Every file that is written is forced to the disk, thousands of times: a quarter of the tests' time where a
# disk takes 5 ms for it. No test cuts the power, so none can tell a disk from memory.
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and _in_memory():
    os.environ["PYTEST_DEBUG_TEMPROOT"] = "/dev/shm"


# A lone answer waits this long for others that are committed with it; a quarter of a second in real runs.
ledger.GROUP_SECONDS = 0.01

# On a slow machine an example may take its time: that it took longer than the one before is no mistake.
settings.register_profile("unibind", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unibind")


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` starts: a process for each core that this one may use, at most eight."""
    return min(8, cores())


# Tests that share what takes a process seconds to make: one with all libraries loaded, from which commands
# are forked, and the sample world run to its end; a Prefect server. One process of pytest-xdist gets a line.
_TOGETHER = (
    ("tests/e2e/", "tests/torture/", "tests/pipeline/run/test_part_job.py"),
    ("tests/flows/",),
)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile` is, but for the tests above."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrLine(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((" ".join(line) for line in _TOGETHER if file.startswith(line)), file)

    return ByFileOrLine(config, log)


def pytest_collection_finish() -> None:
    """What is loaded now stays: the collector need not look at it again before the end."""
    gc.freeze()
    atexit.register(gc.unfreeze)


_connect = socket.socket.connect


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection that leaves the machine, so that no test can pass because of the network."""

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a test tried to reach {address}")
        _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Where the tests were started in the background of a script, the shell has switched SIGINT off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


Mutations = Callable[[bytes, int], Iterator[bytes]]
_EXTREMES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b'"',
    b"\n",
    b",",
    b"[",
    b"{",
)


@pytest.fixture(scope="session")
def mutations() -> Mutations:
    """`mutations(content, number)`: that many damaged copies of a file, the same ones at every call."""

    def mutate(content: bytes, number: int) -> Iterator[bytes]:
        choose = random.Random(len(content))
        for _ in range(number):
            copy = bytearray(content)
            for _ in range(choose.choice((1, 1, 2, 8))):
                place = choose.randrange(len(copy) + 1)
                end = min(len(copy), place + choose.choice((1, 2, 4, 16, 200)))
                match choose.randrange(6):
                    case 0 if place < len(copy):
                        copy[place] ^= 1 << choose.randrange(8)
                    case 1:
                        copy[place:place] = choose.choice(_EXTREMES) * choose.choice((1, 1, 3, 2000))
                    case 2:
                        copy[place:end] = choose.choice(_EXTREMES)
                    case 3:
                        del copy[place:end]
                    case 4:
                        copy[place:place] = copy[end : end + 40] * choose.choice((1, 50))
                    case _:
                        del copy[place:]
            yield bytes(copy)

    return mutate


@pytest.fixture(scope="session")
def real_files() -> Path:
    """The folder of real files: `UNIBIND_SAMPLES`, else ../shared/samples. Without it the test is skipped."""
    folder = Path(os.environ.get("UNIBIND_SAMPLES") or Path(__file__).parents[2] / "shared" / "samples")
    if not folder.is_dir():
        pytest.skip(f"no real files in {folder}; set UNIBIND_SAMPLES")
    return folder


@pytest.fixture(scope="session")
def finished_cups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project file of tests/planted.py, run to its end; not to be changed."""
    from pipeline.project import load_project
    from pipeline.run.jobs import plan
    from pipeline.run.runner import run_stages
    from tests.planted import plant_project, register_encoder

    def make(folder: Path) -> None:
        project = load_project(plant_project(folder / "project"))
        run_stages(project, plan(project))

    made = once(tmp_path_factory, "finished-cups", make)
    register_encoder()
    # A copy for each process: a run of it, which finds nothing to do, locks it.
    own = Path(shutil.copytree(made / "project", tmp_path_factory.mktemp("cups") / "project"))
    return own / "unibind.toml"


@pytest.fixture(scope="session")
def sample_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest sample world (tests/planted.py), made by two processes; not to be changed."""
    from data.tabletop.world import build_world
    from tests.planted import SMALL_WORLD

    return once(tmp_path_factory, "sample-world", lambda folder: build_world(folder, SMALL_WORLD, workers=2))


@pytest.fixture
def cups(finished_cups: Path, tmp_path: Path) -> Path:
    """The project file of a copy of it, to be changed."""
    return Path(shutil.copytree(finished_cups.parent, tmp_path / "cups")) / finished_cups.name


@pytest.fixture(scope="session")
def save_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`save_clip(kind)`: a folder with a random CLIP, SigLIP or SigLIP 2 as transformers itself saves it
    (`clip-long`: one that reads texts of 200 letters).

    32 pixels, two layers, letters as words; the same weights at every call.
    """
    folders: dict[str, Path] = {}

    def save(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            _save_clip(kind, folders[kind])
        return folders[kind]

    return save


def _save_clip(kind: str, folder: Path) -> None:
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    text = tower | {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision: dict[str, Any] = tower | {"patch_size": 8}
    if kind.startswith("clip"):
        vision["image_size"] = 32
        limit = 200 if kind == "clip-long" else 40
        config = transformers.CLIPConfig(
            text_config=text | {"max_position_embeddings": limit}, vision_config=vision, projection_dim=16
        )
        tokenizer = transformers.CLIPTokenizerFast(vocab={word: n for n, word in enumerate(words)}, merges=[])
        processor = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
        model = transformers.CLIPModel
    else:
        text |= {"max_position_embeddings": 64, "projection_size": 32}
        by_letter = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="z"))
        by_letter.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        by_letter.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 1)]
        )
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=by_letter,
            pad_token="<|endoftext|>",
            eos_token="<|endoftext|>",
            model_input_names=["input_ids"],
            model_max_length=64,
        )
        if kind == "siglip":
            vision["image_size"] = 32
            config = transformers.SiglipConfig(text_config=text, vision_config=vision)
            processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
            model = transformers.SiglipModel
        else:
            special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
            vocabulary = {word: n for n, word in enumerate((*special, "▁", *letters))}
            tokenizer = transformers.Siglip2Tokenizer(
                vocab=vocabulary, merges=[], model_max_length=64, model_input_names=["input_ids"]
            )
            config = transformers.Siglip2Config(text_config=text, vision_config=vision | {"num_patches": 16})
            processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
            model = transformers.Siglip2Model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model(config)
        for weight in network.parameters():  # else some start at zero, and what they do would not be seen
            torch.nn.init.normal_(weight, std=0.3)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
