"""Manifests: read the list of samples and the categories that they belong to."""
