"""Counting downloads, by the Hub's rules: however many files are fetched, a repo counts once.

Of a model, one file stands for the whole of it
(https://huggingface.co/docs/hub/models-download-stats); of the others, what one client fetches
within five minutes is one download
(https://huggingface.co/docs/hub/datasets-download-stats). Counts are gathered in memory and
written every few seconds; a crash may lose those few, never a commit's worth of fsyncs.
"""

from __future__ import annotations

import threading
import time

from .repos import Repo, Repos

_QUERY_FILES = frozenset({"model_index.json", "config.json", "adapter_config.json"})
_FLUSH_SECONDS = 5.0
_VISIT_SECONDS = 300.0


class Downloads:
    """Counts in memory, writes now and then."""

    def __init__(self, repos: Repos) -> None:
        self._repos = repos
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._visits: dict[tuple[str, str], float] = {}
        self._flushed = time.monotonic()

    def count(self, repo: Repo, path: str, client: str) -> None:
        """Note that a file was fetched; `client` is the address that it was sent to."""
        if repo.kind == "model" and not counts(path):
            return
        now = time.monotonic()
        with self._lock:
            if repo.kind == "model" or self._is_new((repo.id, client), now):
                self._counts[repo.id] = self._counts.get(repo.id, 0) + 1
            due = now - self._flushed > _FLUSH_SECONDS
        if due:
            self.flush()

    def _is_new(self, visit: tuple[str, str], now: float) -> bool:
        """Tell whether a client has not been at a repo in the last minutes."""
        if visit in self._visits and now - self._visits[visit] < _VISIT_SECONDS:
            return False
        for known in [one for one, then in self._visits.items() if now - then >= _VISIT_SECONDS]:
            del self._visits[known]
        self._visits[visit] = now
        return True

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
