"""What a server says no with, besides what generating raises."""

from __future__ import annotations

from hublora.errors import HubloraError


class Overloaded(HubloraError):
    """More requests wait than the server lets in."""


class Loading(HubloraError):
    """The base is not loaded yet."""


class Unavailable(HubloraError):
    """The base could not be loaded."""


class TimedOut(HubloraError):
    """A request was not done within its time."""


class Cancelled(Exception):
    """The client of a request is gone, or asked to stop it."""
