"""`tagonce export`: formats, destinations, sidecar files, and the record of an export."""
