"""The flows' parameters, as Prefect's page asks for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

ProjectPath = Annotated[
    str,
    Field(
        title="Project",
        description="The project file (TOML), on the machine of the worker; relative to the repository.",
    ),
]
Downstream = Annotated[
    bool,
    Field(
        title="Localize and train too",
        description="Afterwards choose the embedding centers, train, evaluate and report, as subflows.",
    ),
]
