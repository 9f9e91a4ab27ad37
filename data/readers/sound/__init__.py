"""Sounds: find the whole recording in a file and decode it."""
