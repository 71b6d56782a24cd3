"""Counting downloads, by the Hub's rule: one file of a repo stands for the whole of it.

Which file that is: https://huggingface.co/docs/hub/models-download-stats. Counts are gathered in
memory and written every few seconds; a crash may lose those few, never a commit's worth of fsyncs.
"""

from __future__ import annotations

import threading
import time

from .repos import Repo, Repos

_QUERY_FILES = frozenset({"model_index.json", "config.json", "adapter_config.json"})
_FLUSH_SECONDS = 5.0


class Downloads:
    """Counts in memory, writes now and then."""

    def __init__(self, repos: Repos) -> None:
        self._repos = repos
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._flushed = time.monotonic()

    def count(self, repo: Repo, path: str) -> None:
        """Note that a file was fetched."""
        if repo.kind == "model" and not counts(path):
            return
        with self._lock:
            self._counts[repo.id] = self._counts.get(repo.id, 0) + 1
            due = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what was counted."""
        with self._lock:
            gathered, self._counts = self._counts, {}
            self._flushed = time.monotonic()
        if gathered:
            self._repos.add_downloads(gathered)


def counts(path: str) -> bool:
    """Tell whether fetching this file of a model counts: a config, or a top-level adapter."""
    return path in _QUERY_FILES or ("/" not in path and path.endswith(".safetensors"))
