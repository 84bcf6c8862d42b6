"""`tagonce doctor`: what each part of an installation looks like from this machine, and what to do about it."""
