"""Every setting of a training: its sections, rules, presets and effective defaults."""
