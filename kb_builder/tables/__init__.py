"""Tables of the knowledge base: their schemas, parts, controls, and the ingest of manifests."""
