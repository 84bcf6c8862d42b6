"""What should be done: sources of references, the queue and its messages."""
