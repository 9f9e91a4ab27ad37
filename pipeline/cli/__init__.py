"""The command line `unibind`."""
