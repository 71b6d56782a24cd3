"""Adapters in a running pipeline: held in memory, activated, weighted and scheduled."""
