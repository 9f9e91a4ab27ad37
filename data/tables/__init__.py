"""Tables from outside: read CSV, TSV, JSONL and Parquet files as rows of text."""
