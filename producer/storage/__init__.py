"""S3 clients: one way to make them, reading a sample, uploading."""
