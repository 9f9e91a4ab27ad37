"""Run the stages of the main job: list them, skip finished ones, and checksum their outputs."""
