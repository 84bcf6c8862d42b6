"""Stored scores compared with tags given by people."""
