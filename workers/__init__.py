"""The doing: fetch, decode, infer, write."""
