"""Benchmarks, run by hand: `make bench-kb`. Their results are in `bench/results/`."""
