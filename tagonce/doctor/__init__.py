"""`tagonce doctor`: checks of each part of an installation from this machine, with advice."""
