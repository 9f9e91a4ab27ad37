"""LanguageBind: the encoder, its published folders, its preprocessing and its network."""
