"""Sounds: find the complete recording in a file and decode it."""
