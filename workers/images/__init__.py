"""Decodes files to uint8 pixels within limits. No torch and no queue: the review page uses it too."""
