"""Facts: what can be measured of a sample, in plain sentences."""
