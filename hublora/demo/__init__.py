"""The embedded default: a tiny base, tiny data sets, and what made them."""
