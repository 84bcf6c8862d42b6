"""Models that can be run: their names, their files, and a description of each."""
