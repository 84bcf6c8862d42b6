"""Bytes as each database has them: arrays, blobs, COPY. No SQL."""
