"""Flow matching with a transformer: what its families share."""
