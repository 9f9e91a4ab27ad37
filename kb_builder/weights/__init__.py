"""Model weights: finding, downloading, checking and reading them, and their licences."""
