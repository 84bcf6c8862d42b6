"""The review page: stored scores in a browser."""
