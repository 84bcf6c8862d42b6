"""Names in people's files: encodings, spellings, paths and tags, and the rows that they match."""
