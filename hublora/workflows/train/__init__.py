"""Training end to end: settings, preparation, loop, artifacts."""
