"""The image path: fetch, decode, infer, write."""
