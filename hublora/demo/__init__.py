"""The demo: a tiny base model, tiny datasets and a guided tour."""
