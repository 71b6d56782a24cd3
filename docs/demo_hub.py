"""The demo's embedded Hub, for the scripts that generate the images of these pages."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def demo_hub() -> Iterator[Path]:
    """Run a Hub with the demo's repos, for this process and those that it starts.

    Yields the folder that everything is kept in: the one named on the command line, or a temporary
    one.
    """
    if len(sys.argv) > 1:
        with _hub_in(Path(sys.argv[1]).resolve()) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as temporary, _hub_in(Path(temporary)) as folder:
        yield folder


@contextmanager
def _hub_in(folder: Path) -> Iterator[Path]:
    from hublora.demo.seed import seed
    from hublora.localhub import LocalHub

    folder.mkdir(parents=True, exist_ok=True)
    with LocalHub.start(folder / "hub", user="demo") as hub:
        seed(folder / "hub")
        os.environ |= {**hub.environ(), "HF_HOME": str(folder / "hf")}
        os.environ["HUBLORA_CACHE"] = str(folder / "cache")
        yield folder
