"""Evaluation: recognition, retrieval, balance, baselines, intervals and the map of the space."""
