"""Numeric inputs of encoders: mel filter banks and event arrays, in NumPy."""
