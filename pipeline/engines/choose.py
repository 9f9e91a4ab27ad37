"""Which engine a project names. The library of an engine is imported only where it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.engines.base import Engine
from pipeline.engines.local import LocalEngine

if TYPE_CHECKING:
    from pipeline.project import RunSection


@contextmanager
def engine_of(settings: RunSection) -> Iterator[Engine]:
    """The engine of `[run]`; what it holds is given back afterwards.

    Raises InputError where a cluster is asked for and none is named, and MissingDependencyError where the
    extra `ray` is not installed.
    """
    if settings.engine == "local":
        yield LocalEngine()
        return
    from pipeline.engines.ray import RayEngine

    engine = RayEngine(settings)
    try:
        yield engine
    finally:
        engine.close()
