"""Postings: the images of each tag, derived from the packed rows, for searches and counts."""
