"""Stage 1: prompts → descriptions (ledger, Parquet) → embeddings (store); owns the knowledge base on disk."""
