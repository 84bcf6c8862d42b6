"""The network and its device: the only folder that imports torch."""
