"""Which models can be run, what their files look like, and how they become a network."""
