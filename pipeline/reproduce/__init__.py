"""Reproduce the paper's benchmarks."""
