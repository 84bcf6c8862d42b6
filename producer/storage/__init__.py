"""S3: creating clients, reading a sample, uploading."""
