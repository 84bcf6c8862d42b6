"""Resizes decoded images as the references of the models do, bit for bit: arithmetic on pixels. No files, no torch."""
