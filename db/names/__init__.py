"""Names and texts as people write them: encodings, spellings, paths, tags, and the rows they match."""
