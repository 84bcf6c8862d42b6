"""What all pages share while the server runs: database, model, counts of the whole collection."""
