"""Families of taggers that are not plain timm checkpoints: one file each, which recognises and describes its files."""
