"""`LocalHub`: the embedded Hub in a process of its own, for tests, the demo and scripts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO

from hublora.errors import HubloraError

_PATIENCE_SECONDS = 15


class LocalHub:
    """A running Hub; stops with `stop()`, with its `with` block, and with the process it serves."""

    def __init__(self, process: subprocess.Popen[str], url: str, token: str) -> None:
        self._process = process
        self.url = url
        self.token = token

    @classmethod
    def start(
        cls,
        data_dir: Path | str,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        user: str = "me",
        read_only: bool = False,
        part_bytes: int | None = None,
        patience: float | None = None,
        log_file: Path | str | None = None,
    ) -> LocalHub:
        """Start a Hub over `data_dir` and return when it answers.

        Args:
            data_dir: Folder of the database and the repos; created if it does not exist.
            port: The port, 0 for a free one.
            host: A loopback address.
            user: The name of the first user, if nobody is there yet.
            read_only: Refuse every change.
            part_bytes: From which size on, and in which pieces, uploads go in parts.
            patience: How many seconds a request has to begin; its body may pause three times that.
            log_file: File for the server's stderr; None discards it.

        Raises:
            HubloraError: It did not start; the message has the server's last words.
        """
        flags = ["--data", str(data_dir), "--host", host, "--port", str(port), "--user", user]
        flags += ["--read-only"] if read_only else []
        flags += ["--part-bytes", str(part_bytes)] if part_bytes else []
        flags += ["--patience", str(patience)] if patience else []
        flags += ["--verbose"] if log_file else []
        # The log goes to a file: nobody reads along, and a full pipe would stop the server.
        with open(log_file, "a+") if log_file else tempfile.TemporaryFile("w+") as log:
            hub = cls(*_launch(flags, log))
        with urllib.request.urlopen(f"{hub.url}/health", timeout=_PATIENCE_SECONDS) as answer:
            assert answer.status == 200
        return hub

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def environ(self, token: str | None = None) -> dict[str, str]:
        """Return the variables that lead the Hugging Face libraries of a new process here.

        The libraries read `HF_ENDPOINT` when they are imported, so it has to be set before.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": token or self.token,
            "HF_HUB_DISABLE_XET": "1",
        }

    def stop(self) -> None:
        """Stop the server and wait until it has."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def __enter__(self) -> LocalHub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _launch(flags: list[str], log: IO[str]) -> tuple[subprocess.Popen[str], str, str]:
    """Start the server; return it with its address and token once it has told them.

    Raises:
        HubloraError: It ended instead.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "hublora.localhub", *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.communicate()
        log.seek(0)
        words = log.read()[-2000:].strip()
        raise HubloraError(f"The embedded Hub did not start: {words}")
    facts = json.loads(line)
    return process, facts["url"], facts["token"]
