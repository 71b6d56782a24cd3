"""Which files of a run folder hublora wrote: only those are ever removed or replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hublora.filesystem import RUN_RECORD, sha256_of, write_atomically


class ResultFiles:
    """The result files of one run folder, recorded with their SHA-256.

    Args:
        run: Run folder.
        warn: Called with a sentence for each file of somebody else that had to be renamed.
    """

    def __init__(self, run: Path, warn: Callable[[str], None]) -> None:
        self._run, self._warn = run, warn
        self._written = _read(run / RUN_RECORD)

    def clear(self, folder: str) -> None:
        """Remove the recorded files of a subfolder that nobody has changed since.

        Args:
            folder: Name of the subfolder, such as "images".
        """
        for name in [name for name in self._written if name.startswith(f"{folder}/")]:
            path = self._run / name
            if self._is_own(name):
                path.unlink()
            del self._written[name]
        self._save()

    def make_way(self, path: Path) -> Path:
        """Return `path`, ready to be written: a file there that is not hublora's is renamed to one
        with " (1)", " (2)", … in its name."""
        name = path.relative_to(self._run).as_posix()
        if path.exists() and not self._is_own(name):
            number = 1
            while (other := path.with_stem(f"{path.stem} ({number})")).exists():
                number += 1
            path.rename(other)
            self._warn(
                f"{path} was not written by hublora, or was changed: it is {other.name} now."
            )
        return path

    def add(self, path: Path) -> None:
        """Record a file that was written."""
        self._written[path.relative_to(self._run).as_posix()] = sha256_of(path)
        self._save()

    def _is_own(self, name: str) -> bool:
        path = self._run / name
        is_plain = path.is_file() and not path.is_symlink()
        return is_plain and self._written.get(name) == sha256_of(path)

    def _save(self) -> None:
        write_atomically(self._run / RUN_RECORD, json.dumps(self._written, indent=1))


def _read(record: Path) -> dict[str, str]:
    try:
        found = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {
        name: digest
        for name, digest in pairs
        if isinstance(digest, str) and ".." not in Path(name).parts and not Path(name).is_absolute()
    }
