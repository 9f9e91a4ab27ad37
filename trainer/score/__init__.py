"""Scoring: exact nearest neighbours and category scores, by blocks, on all cores."""
