"""Stage 2: embedding centers, alignment heads, training, evaluation, retrieval; reads the knowledge base."""
