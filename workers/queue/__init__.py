"""The worker process: takes chunks off the queue, renews their leases, and returns them."""
