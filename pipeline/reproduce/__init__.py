"""Run the paper's benchmarks and compare the results with the paper's."""
