"""Lets `python -m hublora` and `accelerate launch -m hublora` work."""

from hublora.cli.main import run

run()
