"""The worker process: it takes chunks off the queue, keeps them its own, and gives them back."""
