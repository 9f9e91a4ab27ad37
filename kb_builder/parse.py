"""Raw answers to texts."""

from __future__ import annotations

PARSER_VERSION = "1"  # goes into every row's id: raise it when the same answer would give another text
