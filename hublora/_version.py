"""The version, in one place; read by the build and by every card that is written."""

__version__ = "0.1.0"
