"""Ground truth: tags that people gave, labels of single tags, and stored scores compared with both."""
