"""Input of samples: modalities, manifests, readers, renderings and the tabletop sample world."""
