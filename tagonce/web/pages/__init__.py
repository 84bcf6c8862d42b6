"""One file a page: what a request of this address gets."""
