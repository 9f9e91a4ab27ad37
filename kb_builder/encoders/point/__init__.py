"""OpenShape's PointBERT: the encoder and its network."""
