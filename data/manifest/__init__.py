"""Manifests: read the list of samples and their categories."""
