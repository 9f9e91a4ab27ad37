"""A chat server and an S3 server on loopback, as the knowledge base's own tests have them."""

from __future__ import annotations

from tests.kb_builder.conftest import chat_server
from tests.kb_builder.publish.conftest import place_name, s3_endpoint

__all__ = ["chat_server", "place_name", "s3_endpoint"]
