"""LanguageBind: the encoder, its folders, its inputs and its network."""
