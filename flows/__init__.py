"""Thin Prefect wrappers over the pipeline's stages, and their deployments. No logic of their own."""
