"""Maps: the space as points in the plane, by t-SNE."""
