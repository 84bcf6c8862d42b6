"""Which tags are kept: thresholds, policies, named profiles, threshold files."""
