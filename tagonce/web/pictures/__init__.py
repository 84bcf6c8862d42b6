"""Thumbnails of local files and S3 objects, and the folder they are kept in."""
