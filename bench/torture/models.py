"""`python -m bench.torture.models`: mutants of weights and heads, loaded as the pipeline loads them.

    python -m bench.torture.models [--count 1000] [--seed 0]

Each must be loaded, or refused with a one-line error of the project. Exit status 1 where one is not.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from bench.torture.mutate import mutant
from data.errors import UniBindError
from kb_builder.weights.checkpoint import load_state
from trainer.align.heads import Heads, load_heads, save_heads


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, valid contents, and the function that loads it from a folder."""

    name: str
    contents: tuple[bytes, ...]
    load: Callable[[Path], Any]


def kinds() -> tuple[Kind, ...]:
    """Both formats of torch checkpoints, safetensors, and heads."""
    rng = np.random.default_rng(3)
    state = {"a.weight": torch.ones(4, 3), "a.bias": torch.zeros(4), "steps": torch.tensor(7)}
    files = []
    for how in ({}, {"_use_new_zipfile_serialization": False}):
        for value in (state, {"state_dict": state}):
            file = io.BytesIO()
            torch.save(value, file, **how)
            files.append(file.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        numbers = {"image": rng.normal(size=(8, 6)).astype(np.float32)}
        biases = {"image": rng.normal(size=8).astype(np.float32)}
        hidden = {"image": (rng.normal(size=(6, 5)).astype(np.float32), np.zeros(6, np.float32))}
        heads = Heads(numbers, biases, {"encoders": {"samples": "a"}, "settings": {}}, hidden)
        content = save_heads(Path(folder), heads).read_bytes()
    return (
        Kind("weights.pth", tuple(files), lambda folder: load_state(folder / "weights.pth")),
        Kind(
            "weights.safetensors",
            (save_tensors(state),),
            lambda folder: load_state(folder / "weights.safetensors"),
        ),
        Kind("heads.safetensors", (content,), _use_heads),
    )


def _use_heads(folder: Path) -> None:
    heads = load_heads(folder)
    for modality, weight in heads.weights.items():
        first = heads.hidden[modality][0] if modality in heads.hidden else weight
        heads.map(modality, np.ones((2, first.shape[1]), np.float32))


def attack(kind: Kind, *, count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """The outcomes of `count` mutants, and the unexpected exceptions."""
    outcomes: Counter[str] = Counter()
    foreign: list[str] = []
    for number in range(count):
        (folder / kind.name).write_bytes(mutant(kind.contents, seed=seed, number=number))
        try:
            kind.load(folder)
            outcomes["loaded"] += 1
        except UniBindError as error:
            outcomes["refused"] += 1
            if "\n" in str(error) or kind.name not in str(error):
                foreign.append(f"{number}: {error}")
        except Exception as error:
            outcomes["foreign"] += 1
            foreign.append(f"{number}: {type(error).__name__}: {error}")
    return outcomes, foreign


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds():
            outcomes, foreign = attack(kind, count=given.count, seed=given.seed, folder=Path(folder))
            print(f"{kind.name:22}", dict(outcomes), flush=True)
            for line in foreign:
                print("   ", line[:300])
            failed = failed or bool(foreign)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
