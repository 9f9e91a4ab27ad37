"""Descriptions: plan prompts, judge answers and write the rows of the descriptions table."""
