"""Model cards and loss plots."""
