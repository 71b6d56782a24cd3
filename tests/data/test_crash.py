"""A cache survives processes that die or run at the same time, to the byte."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from tests.data.slow_build import build
from tests.processes import Forked

ROW_BYTES = 3 * 4 * 4 * 4  # of the mean: three channels of 4×4 in float32


def start(photos: Path, cache: Path, pause: float = 0.0) -> Forked:
    return Forked(build, ["build", str(photos), str(cache), str(pause)], photos)


def finish(process: Forked) -> tuple[int, list[bytes]]:
    """Return how many images a process encoded and the files that it left."""
    done = process.finish(120)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    return int(last[1]), [Path(path).read_bytes() for path in last[2:]]


def wait_for(process: Forked, done: int) -> None:
    """Wait until a process has noted that many rows."""

    def noted() -> bool:
        lines = process.stdout.rpartition("\n")[0].splitlines()
        return any(int(line.split()[0]) >= done for line in lines if line[0].isdigit())

    process.wait_until(noted)


@pytest.fixture
def undisturbed(photos: Path, tmp_path: Path, libraries: None) -> Forked:
    """A build that nothing happens to; runs beside the disturbed ones."""
    return start(photos, tmp_path / "undisturbed")


def test_a_build_that_is_killed_goes_on_and_ends_in_the_same_bytes(photos, tmp_path, undisturbed):
    cache = tmp_path / "killed"
    for done in (5, 17):
        process = start(photos, cache, pause=0.1)
        wait_for(process, done)
        process.kill()
    encoded, files = finish(start(photos, cache))
    total, expected = finish(undisturbed)
    assert files == expected
    assert 0 < encoded <= total - 16 + 2
    assert not list(cache.rglob("*.partial"))


def test_rows_that_were_not_noted_are_not_trusted(photos, tmp_path, undisturbed):
    cache = tmp_path / "cut"
    process = start(photos, cache, pause=0.1)
    wait_for(process, 8)
    process.kill()
    [partial] = (cache / "latents").glob("*.partial")
    noted = json.loads((partial / "progress.json").read_text())["rows"]
    with (partial / "rows.safetensors").open("r+b") as file:
        header = struct.unpack("<Q", file.read(8))[0]
        file.seek(8 + header + noted * ROW_BYTES)
        file.write(os.urandom(ROW_BYTES))  # as a disk leaves it that lost power while writing
        file.seek(-ROW_BYTES, os.SEEK_END)
        file.write(os.urandom(ROW_BYTES))
    assert finish(start(photos, cache))[1] == finish(undisturbed)[1]


def test_rows_that_were_damaged_since_they_were_noted_are_not_trusted(
    photos, tmp_path, undisturbed
):
    cache = tmp_path / "flipped"
    process = start(photos, cache, pause=0.1)
    wait_for(process, 8)
    process.kill()
    [partial] = (cache / "latents").glob("*.partial")
    with (partial / "rows.safetensors").open("r+b") as file:
        header = struct.unpack("<Q", file.read(8))[0]
        file.seek(8 + header + ROW_BYTES)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))
    assert finish(start(photos, cache))[1] == finish(undisturbed)[1]


def test_two_builds_at_once_share_the_work(photos, tmp_path, undisturbed):
    cache = tmp_path / "shared"
    first = start(photos, cache, pause=0.05)
    wait_for(first, 1)
    second = start(photos, cache)
    results = [finish(first), finish(second)]
    assert sorted(encoded for encoded, _ in results)[0] == 0
    assert results[0][1] == results[1][1] == finish(undisturbed)[1]
