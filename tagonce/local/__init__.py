"""Everything on one machine: an embedded Redis, worker processes, and the loop that watches them."""
