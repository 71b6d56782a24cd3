"""Batches of denoiser calls, in which every request has its own adapters."""
