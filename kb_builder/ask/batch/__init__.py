"""The Batch API: submit requests as jobs, follow the jobs, collect the answers."""
