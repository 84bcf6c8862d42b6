"""Stored scores compared with tags that people gave."""
