"""One file per page: the response to a request for its address."""
