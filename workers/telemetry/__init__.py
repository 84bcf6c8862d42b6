"""Metrics of a worker: time and images by stage, and their HTTP endpoint for Prometheus."""
