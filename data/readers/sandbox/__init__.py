"""Sandbox: decodes untrusted files in worker processes that can be killed."""
