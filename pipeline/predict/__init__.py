"""Predict: recognise and retrieve new files."""
