"""ImageBind: the encoder, its inputs and its network."""
