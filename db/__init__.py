"""The database and everything computed from it: images, scores, policies. No queue, no model and no storage."""
