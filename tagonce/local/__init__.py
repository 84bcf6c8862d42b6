"""Tagging on one machine: an embedded Redis, worker processes, and their supervision."""
