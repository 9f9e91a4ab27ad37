"""Localization: choose the descriptions that become the embedding centers of each category."""
