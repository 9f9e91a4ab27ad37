"""Verify: check a knowledge base against its checksums and its ledger, and parse answers again."""
