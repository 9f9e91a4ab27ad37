"""ImageBind: the encoder, its preprocessing and its network."""
