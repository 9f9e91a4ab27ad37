"""Thin Prefect wrappers over the pipeline's stages, and their deployments; no logic of their own."""

from __future__ import annotations

import os

from kb_builder.ask.endpoint.proxies import spare_loopback

# Prefect counts first uses unless this is set, and it knows no setting of its own for it. This module is
# imported before Prefect is, and the processes that run the flows inherit it. Who sets it otherwise is heard.
os.environ.setdefault("DO_NOT_TRACK", "1")
# As [tool.prefect] in pyproject.toml says, which is read in the repository's root alone.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# The first start of a server makes its database, which takes 10 to 30 seconds on a slow disk; Prefect waits
# for 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

# Nor does it know that a proxy cannot reach this machine's own server: neither its ephemeral one nor `make
# serve`'s.
spare_loopback()
