"""The face: command line, settings, everything on one machine."""
