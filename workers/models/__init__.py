"""Finds a model and reads the files that describe it. No torch."""
