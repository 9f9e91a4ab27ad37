"""Publishes a knowledge base to an object store or a shared folder, fetches it, and reads it where it is."""
