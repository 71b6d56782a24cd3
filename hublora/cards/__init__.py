"""Facts about an adapter become its model card and its plots."""
