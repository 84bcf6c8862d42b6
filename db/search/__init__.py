"""Searches: booru syntax over stored probabilities, read into a tree and asked in SQL."""
