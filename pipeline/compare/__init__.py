"""Compare runs on the same samples, with paired tests."""
