"""Finds images and queues them: sources of references, S3 clients, the queue and its messages."""
