"""Adapters as tensors and facts: files, formats, header-only inspection."""
