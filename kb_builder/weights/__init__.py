"""Model weights: where they are, where they come from, whether they are whole, and their licences."""
