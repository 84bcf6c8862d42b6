"""The queue: Celery on Redis, its messages, and the checks of what comes off it."""
