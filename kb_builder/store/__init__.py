"""Embedding store: tables of vectors in Parquet, with manifests and encoder cards."""
