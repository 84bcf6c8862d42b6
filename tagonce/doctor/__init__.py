"""`tagonce doctor`: checks of each part of an installation, with remedies."""
