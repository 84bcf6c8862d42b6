"""Celery on Redis: the queue, its messages, and the checks of received messages."""
