"""Searches: booru syntax, parsed into a tree and translated to SQL."""
