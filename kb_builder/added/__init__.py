"""Texts from outside: published sets and other knowledge bases as sources of descriptions; packs to share."""
