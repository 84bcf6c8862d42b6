"""The worker process: takes chunks off the queue, renews their leases, returns them."""
