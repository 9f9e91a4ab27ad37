"""Requests to language models: ledger, scheduler, limits, budget and costs."""
