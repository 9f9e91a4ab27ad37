"""Facts: measures a sample, and writes the measurements as a plain sentence."""
