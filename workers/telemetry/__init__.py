"""Where the time of a worker goes: counters, and their HTTP endpoint for Prometheus."""
