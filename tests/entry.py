"""Runs `hublora …` by its entry point without a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def hublora_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run `hublora …` by its entry point, in this process: the libraries are loaded once."""
    from hublora.cli.main import run
    from hublora.cli.output import out

    def invoke(*args: str) -> Done:
        out.use(False, False)
        monkeypatch.setattr(sys, "argv", ["hublora", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            run()
        captured = capsys.readouterr()
        return Done(int(exit.value.code or 0), captured.out, captured.err)

    return invoke
