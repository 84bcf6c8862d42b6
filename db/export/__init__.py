"""Captions and tables from stored scores."""
