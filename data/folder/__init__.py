"""Folders as datasets: find the files, read the layout, group duplicates, draw splits."""
