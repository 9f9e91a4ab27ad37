"""Alignment: train one head per modality to map its vectors into the text space."""
