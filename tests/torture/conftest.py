"""The small project that attacks are made on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.torture.ground import Ground
from bench.torture.ground import ground as make_ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A small project, and its undisturbed run."""
    with make_ground(tmp_path_factory.mktemp("ground")) as made:
        yield made
