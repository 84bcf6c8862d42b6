"""The queue: Celery on Redis, its messages, and the validation of what comes off it."""
