"""Endpoints: the HTTP client, its parameters, the meaning of each status, and pools."""
