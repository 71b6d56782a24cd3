"""One embedded Hub for all tests of a session, and the real clients that talk to it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hublora.localhub import LocalHub, add_user, create_token

# huggingface_hub reads its switches when it is imported: not before `pytest_configure` set them.
if TYPE_CHECKING:
    from huggingface_hub import HfApi

PART_BYTES = 1 << 20
_numbers = itertools.count()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A Hub with the user `me`, the stranger `eve`, and parts of 1 MiB."""
    data_dir = tmp_path_factory.mktemp("hub")
    with LocalHub.start(data_dir, part_bytes=PART_BYTES, log_file=data_dir / "log") as running:
        running.data_dir = data_dir  # type: ignore[attr-defined]
        add_user(data_dir, "eve")
        yield running


def client(**facts: object) -> HfApi:
    """Return a client; `token=False` is nobody."""
    from huggingface_hub import HfApi

    return HfApi(**facts)


@pytest.fixture(scope="session")
def api(hub: LocalHub) -> HfApi:
    """The client of the user `me`, with a write token."""
    return client(endpoint=hub.url, token=hub.token)


@pytest.fixture(scope="session")
def eve(hub: LocalHub) -> HfApi:
    """The client of another user, with a write token of her own."""
    return client(endpoint=hub.url, token=create_token(hub.data_dir, "eve"))  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def reader(hub: LocalHub) -> HfApi:
    """The client of `me` with a token that may only read."""
    token = create_token(hub.data_dir, "me", "read")  # type: ignore[attr-defined]
    return client(endpoint=hub.url, token=token)


@pytest.fixture(scope="session")
def nobody(hub: LocalHub) -> HfApi:
    """A client without a token."""
    return client(endpoint=hub.url, token=False)


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh model repo, gone after the test."""
    name = f"me/{request.node.originalname[:60].strip('_')}-{next(_numbers)}"
    api.create_repo(name)
    yield name
    api.delete_repo(name, missing_ok=True)


@pytest.fixture
def run_python(hub: LocalHub, tmp_path: Path) -> Callable[..., str]:
    """Run a script in a fresh process whose libraries believe this Hub to be the Hub."""

    def run(script: str, *args: str, token: str | None = None) -> str:
        home = {"HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *args],
            env={**os.environ, **hub.environ(token), **home},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
