"""Resolves names to files at a commit: adapters, compositions, bases, lockfiles; and devices."""
