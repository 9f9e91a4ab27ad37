"""Recognise and retrieve new files with a project, or zero-shot."""
