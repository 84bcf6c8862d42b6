"""Thumbnails of local files and S3 objects, and the folder that caches them."""
