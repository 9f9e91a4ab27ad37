"""Let `prefect deployment run build-kb` mean `build-kb/build-kb`: Prefect's CLI wants the slash.

Prefect loads this (entry point group `prefect.plugins`) where `plugins.enabled` is set: see pyproject.toml.
"""

import inspect
import sys
from typing import Any

from prefect.plugins import register_hook


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Teach `prefect deployment run` the short name; leave a Prefect alone that has changed inside."""
    if "run" not in sys.argv or not {"deployment", "deployments"} & set(sys.argv):
        return
    from prefect.client import orchestration

    original = getattr(getattr(orchestration, "PrefectClient", None), "read_deployment_by_name", None)
    if original is None or list(inspect.signature(original).parameters) != ["self", "name"]:
        return

    async def read_deployment_by_name(self: Any, name: str) -> Any:
        return await original(self, name if "/" in name else f"{name}/{name}")

    orchestration.PrefectClient.read_deployment_by_name = read_deployment_by_name  # type: ignore[method-assign]
