"""Registers images and queues them: sources of references, the queue and its messages."""
