"""Thin Prefect wrappers over the pipeline's stages, and their deployments; no logic of their own."""

from __future__ import annotations

import os

# Prefect counts first uses unless this is set, and it knows no setting of its own for it. This module is
# imported before Prefect is, and the processes that run the flows inherit it. Who sets it otherwise is heard.
os.environ.setdefault("DO_NOT_TRACK", "1")
