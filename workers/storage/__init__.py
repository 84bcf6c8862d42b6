"""From a reference to the bytes of the file: local files and S3."""
