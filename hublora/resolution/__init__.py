"""Turns names into files at a commit: adapters, compositions, bases, lockfiles, devices."""
