"""The review page: what is stored, looked at in a browser."""
