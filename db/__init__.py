"""What is known: schema, images, scores, thresholds. No queue, no model, no storage in here."""
