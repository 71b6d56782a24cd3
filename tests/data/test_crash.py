"""A cache survives processes that die or run at the same time, to the byte."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

# Builds the cache of argv[1] (a folder) in argv[2], slowly, noting every row on the disk at once.
PROGRAM = """
import sys, time
import torch
from hublora.data import DataConfig, Encoders, build_cache, open_source, row_file
from hublora.data.row_file import ROWS

row_file.SECONDS_BETWEEN_SYNCS = 0.0
pause = float(sys.argv[3])
encoded = 0

def encode(pixels):
    global encoded
    encoded += len(pixels)
    time.sleep(pause)
    return pixels[:, :, ::4, ::4], pixels[:, :, ::4, ::4].abs()

def write(texts):
    return {"embeds": torch.tensor([[float(len(text))] for text in texts])}

config = DataConfig(folder=sys.argv[1], cache_dir=sys.argv[2], random_flip=True)
source = open_source(config)
print("ready", flush=True)
data = build_cache(
    source, config, Encoders(encode, write, batch_size=2), size=(16, 16),
    progress=lambda done, total: print(done, total, flush=True),
)
print("encoded", encoded, *[folder / ROWS for folder in data.folders], flush=True)
"""

ROW_BYTES = 3 * 4 * 4 * 4  # of the mean: three channels of 4×4 in float32


def start(photos: Path, cache: Path, pause: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(photos), str(cache), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, list[bytes]]:
    """Return how many images a process encoded and the files that it left."""
    last = process.communicate(timeout=120)[0].splitlines()[-1].split()
    assert process.returncode == 0
    return int(last[1]), [Path(path).read_bytes() for path in last[2:]]


def wait_for(process: subprocess.Popen[str], done: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line[0].isdigit() and int(line.split()[0]) >= done:
            return
    raise AssertionError(f"ended before {done} rows")


@pytest.fixture
def undisturbed(photos, tmp_path) -> subprocess.Popen[str]:
    """A build that nothing happens to; runs beside the disturbed ones."""
    return start(photos, tmp_path / "undisturbed")


def test_a_build_that_is_killed_goes_on_and_ends_in_the_same_bytes(photos, tmp_path, undisturbed):
    cache = tmp_path / "killed"
    for done in (5, 17):
        process = start(photos, cache, pause=0.1)
        wait_for(process, done)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
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
    process.communicate()
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
    process.communicate()
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
