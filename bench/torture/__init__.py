"""Attacks on the pipeline: each runs for seconds in a test, and for an hour by hand."""
