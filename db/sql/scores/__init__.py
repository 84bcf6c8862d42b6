"""Stored scores in SQL: conditions, slices, sums over all images."""
