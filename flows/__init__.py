"""Thin Prefect wrappers over the pipeline's stages, and their deployments."""

from __future__ import annotations

import os

from kb_builder.ask.endpoint.proxies import spare_loopback

# Prefect reports first uses unless this variable is set; it has no setting for it. This module is imported
# before Prefect, and the processes that run the flows inherit the variable. A value set by the user is kept.
os.environ.setdefault("DO_NOT_TRACK", "1")
# As [tool.prefect] in pyproject.toml, which is read only in the root of the repository.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# The first start of a server creates its database, which takes 10 to 30 seconds on a slow disk; Prefect
# waits 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

# Prefect would connect to servers on this machine (its ephemeral one, or that of `make serve`) via a proxy.
spare_loopback()
