"""Stored scores read as numpy arrays, and counted over a whole collection."""
