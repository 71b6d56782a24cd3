"""Headers of safetensors files: what strangers write there is believed only as far as it can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from hublora.localhub.store.tensors import parameters, read_header


def write(path: Path, header: dict[str, Any], size: int = 8) -> Path:
    """Write a file with that header and `size` bytes of weights."""
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(size))
    return path


def tensor(shape: Any, dtype: Any = "F32", offsets: Any = (0, 8)) -> dict[str, Any]:
    """Return a header of one tensor."""
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


def test_what_safetensors_writes_is_counted(tmp_path):
    arrays = {
        "a": np.zeros((3, 4), np.float32),
        "b": np.zeros((5,), np.int8),
        "c": np.ones((1,), np.float16),
    }
    save_file({**arrays, "d": np.zeros((0, 7), np.float32)}, tmp_path / "a", {"format": "pt"})
    assert parameters(tmp_path / "a") == {"F32": 12, "I8": 5, "F16": 1}
    found = read_header(tmp_path / "a")
    assert found is not None
    assert found.metadata == {"format": "pt"}
    assert found.shapes["a"] == ("F32", (3, 4))


@pytest.mark.parametrize(
    "header",
    [
        tensor([10**18] * 400),
        tensor([0] + [10**18] * 400, offsets=(0, 0)),
        tensor([2, 2]),
        tensor([1]),
        tensor([-2, -1]),
        tensor([2.0]),
        tensor(["2"]),
        tensor([True, 2]),
        tensor(2),
        tensor([2], dtype="F1000"),
        tensor([2], dtype=["F32"]),
        tensor([2], offsets=(0, 10**30)),
        tensor([2], offsets=(8, 0)),
        tensor([2], offsets=(0,)),
        tensor([2], offsets=(-8, 0)),
        {"w": []},
        {"w": None},
        {"__metadata__": [1]},
        {str(number): tensor([0], offsets=(0, 0))["w"] for number in range(60_000)},
    ],
)
def test_a_header_that_cannot_be_true_is_none(tmp_path, header):
    assert read_header(write(tmp_path / "a", header)) is None
    assert parameters(tmp_path / "a") == {}


def test_a_hostile_header_hides_no_list_and_no_page(hub, api, repo, tmp_path):
    write(tmp_path / "model.safetensors", tensor([10**18] * 400))
    api.upload_file(
        path_or_fileobj=tmp_path / "model.safetensors",
        path_in_repo="model.safetensors",
        repo_id=repo,
    )
    for path in (
        "/api/models?expand=safetensors",
        f"/api/models/{repo}",
        f"/{repo}",
        f"/{repo}/blob/main/model.safetensors",
    ):
        assert httpx.get(hub.url + path).status_code == 200, path
