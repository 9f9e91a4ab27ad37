"""Let `prefect deployment run build-kb` mean `build-kb/build-kb`: Prefect's CLI requires the slash.

Prefect loads this module (entry point group `prefect.plugins`) if pyproject.toml sets `plugins.enabled`.
"""

import inspect
import sys
from typing import Any

from prefect.plugins import register_hook


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Let `prefect deployment run` accept the short name; do nothing if Prefect's internals have changed."""
    if "run" not in sys.argv or not {"deployment", "deployments"} & set(sys.argv):
        return
    from prefect.client import orchestration

    original = getattr(getattr(orchestration, "PrefectClient", None), "read_deployment_by_name", None)
    if original is None or list(inspect.signature(original).parameters) != ["self", "name"]:
        return

    async def read_deployment_by_name(self: Any, name: str) -> Any:
        return await original(self, name if "/" in name else f"{name}/{name}")

    orchestration.PrefectClient.read_deployment_by_name = read_deployment_by_name  # type: ignore[method-assign]
