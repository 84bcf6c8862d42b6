"""Reads the file of a reference: local files and S3."""
