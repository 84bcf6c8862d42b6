"""Stored scores as numpy arrays, and counts over a whole collection."""
