"""State that all pages share: database, model, counts of the whole collection."""
