"""What to trust: zero-shot, heads or both; trained against untrained categories; other draws of splits."""
