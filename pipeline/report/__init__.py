"""The report: one HTML page with the results of a run."""
