"""Writes rows of many images at once: results, postings, references, tags."""
