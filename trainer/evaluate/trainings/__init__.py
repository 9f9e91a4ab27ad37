"""The trainings of an evaluation as orders: others than this process may carry them out."""
