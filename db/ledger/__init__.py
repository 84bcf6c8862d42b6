"""The tables that producers and workers write: images, models, results, failures, deliveries."""
