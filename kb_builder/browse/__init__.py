"""Browse the knowledge base: DuckDB views, queries, the shell and overviews."""
