"""The training loop: config, objectives, a generator of events, checkpoints."""
