"""Samples come in: modalities, manifests, readers, renderings and the tabletop sample world."""
