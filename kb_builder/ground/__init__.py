"""Ground: what is known of categories before a text is written, and from where: notes, dictionary, model."""
