"""Reading tensors gives all memory back, however often."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hublora.adapters.tensor_file import read_tensors

TENSORS, READS = 64, 50


def test_a_file_that_is_read_again_and_again_takes_no_more_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({f"layer{i}.weight": torch.ones(4, 4) for i in range(TENSORS)}, file)
    for _ in range(5):
        read_tensors(file)
    before = sys.getallocatedblocks()
    for _ in range(READS):
        read_tensors(file)
    assert sys.getallocatedblocks() - before < TENSORS * READS / 10


def test_tensors_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.float8_e4m3fn)
    save_file({str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}, file)
    read, wanted = read_tensors(file), load_file(file)
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[name].float(), wanted[name].float()) for name in wanted)
    assert all(read[name].dtype == wanted[name].dtype for name in wanted)
