"""The database: schema, images, scores, thresholds. Imports no queue, no model and no storage."""
