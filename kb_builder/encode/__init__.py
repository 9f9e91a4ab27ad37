"""Encode stage: turns descriptions, controls and samples into vectors in the embedding store."""
