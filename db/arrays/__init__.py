"""Arrays and batches without SQL: rows of different lengths, sets of ids, a hash of integers."""
