"""The only place that talks to a Hub: resolve, push, verify."""
