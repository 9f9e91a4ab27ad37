"""Decoding beside encoding: it overlaps, it is bounded, and a bad file in the midst costs only itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from data.errors import SampleError
from data.modality import Modality
from kb_builder.encode.parts import encode_parts
from kb_builder.encode.plan import plan_parts
from kb_builder.encode.rows import TEXT, WantedVectors
from kb_builder.settings import Encode
from kb_builder.store.table import read_vectors

BATCH, THREADS = 3, 2


@dataclass
class Watched:
    """Counts the samples that are decoded and not yet encoded; its first batch waits for another's sample."""

    name: str = "watched"
    identity: str = "watched-1"
    dim: int = 2
    modalities: frozenset[str] = frozenset({"image"})
    licence: str = "MIT"
    parameters: int = 0
    held: int = 0
    most: int = 0
    begun: bool = False
    overlapped: bool = False
    another: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, modality: Modality, source: Path | str) -> str:
        if Path(source).stem == "bad":
            raise SampleError(f"{source}: cannot be read; export it again")
        with self.lock:
            self.held += 1
            self.most = max(self.most, self.held)
            if self.begun:
                self.another.set()
        return str(source)

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        with self.lock:
            first, self.begun = not self.begun, True
        if first:
            self.overlapped = self.another.wait(timeout=120)
        with self.lock:
            self.held -= len(batch)
        return np.tile(np.array([0.6, 0.8], np.float32), (len(batch), 1))


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """A fixed number of batches in parallel, on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def test_decoding_overlaps_encoding_and_is_bounded(tmp_path: Path, torch_threads: None) -> None:
    """While one batch is encoded another is decoded, and at most one per thread is held."""
    names = [f"{number:02d}" for number in range(40)]
    columns = [names, ["image"] * 40, names, [f"/media/{'bad' if name == '17' else name}" for name in names]]
    ids, groups, contents, sources = (pa.array(column, TEXT) for column in columns)
    encoder = Watched()
    wanted = {"samples": [WantedVectors(ids, groups, contents, sources, files=True, labels=sources)]}
    with plan_parts(tmp_path, wanted, identity=encoder.identity, rows_per_part=16) as plan:
        result = encode_parts(plan, encoder, Encode(batch_size=BATCH), what="samples")
    assert result.reasons == {"17": "/media/bad: cannot be read; export it again"}
    assert read_vectors(tmp_path / "samples").ids == [name for name in names if name != "17"]
    assert encoder.overlapped
    assert BATCH < encoder.most <= THREADS * BATCH
    assert encoder.held == 0
