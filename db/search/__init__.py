"""Searches: booru syntax over stored probabilities, parsed into a tree and compiled to SQL."""
