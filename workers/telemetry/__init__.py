"""Time per stage of a worker: counters, and their HTTP endpoint for Prometheus."""
