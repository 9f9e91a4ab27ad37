"""Run the stages: what they are, when they are finished, and how their outputs are protected."""
