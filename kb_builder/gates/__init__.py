"""Gates: decide which texts are kept, and say why the others are rejected."""
