"""Processes queued images: fetch, decode, infer, write."""
