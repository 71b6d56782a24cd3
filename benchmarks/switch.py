"""Where does the time go when `use` brings an adapter that is not in memory?

    python benchmarks/switch.py [--runs 15] [--rank 16]

On a pipeline with all layers of Stable Diffusion 1.5's U-Net and text encoder, an eighth as wide,
two adapters by turns, of local files and `cache_bytes=0`. Times are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Share -> function (file, name) whose time, with all that it calls, it is.
SHARES = {
    "reading: header, tensors, check that all are finite": ("files.py", "load_adapter"),
    "of that, SHA-256 of the file": ("filesystem.py", "sha256_of"),
    "of that, tensors from the disk": ("tensor_file.py", "read_tensors"),
    "of that, layers of tensors": ("parse.py", "read_layers"),
    "placing: layers of the base, one block of memory": ("manager.py", "fit"),
    "of that, packing": ("packed.py", "pack"),
    "activating: buffers of the adapter's ranks": ("component.py", "reserve"),
    "activating: copying into the buffers": ("component.py", "activate"),
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import hublora

    with tempfile.TemporaryDirectory() as folder:
        base, refs = _files(Path(folder), args.rank)
        pipe = hublora.load(refs[0], base=base, cache_bytes=0)
        for ref in refs[1:] + refs:
            hublora.use(pipe, ref)
        times = [_time(lambda n=n: hublora.use(pipe, refs[n % 2])) for n in range(1, args.runs)]
        print("| what | ms | share |\n|---|---|---|")
        print(f"| a switch, not in memory | {1000 * statistics.median(times):.1f} | |")
        profile = cProfile.Profile(time.process_time)
        for number in range(args.runs, 2 * args.runs):
            profile.runcall(hublora.use, pipe, refs[number % 2])
        kept = hublora.load(refs[0], base=base)
        hublora.use(kept, refs[1])
        times = [_time(lambda n=n: hublora.use(kept, refs[n % 2])) for n in range(args.runs)]
    _print_shares(pstats.Stats(profile))
    print(f"| a switch in memory | {1000 * statistics.median(times):.1f} | |")


def _print_shares(stats: pstats.Stats) -> None:
    found: dict[tuple[str, str], float] = {}
    for (file, _, name), (_, _, _, total, _) in stats.stats.items():  # type: ignore[attr-defined]
        key = (Path(file).name, name)
        if "hublora" in file:
            found[key] = found.get(key, 0.0) + total
    whole = found["load.py", "use"]
    for share, key in SHARES.items():
        print(f"| {share} | | {found.get(key, 0.0) / whole:.0%} |")


def _time(act: Any) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


def _files(folder: Path, rank: int) -> tuple[str, list[str]]:
    """Save a base and two adapters of it; return their paths."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    from tests.lora import ATTENTION, random_adapter, save_adapter
    from tests.tiny import save_pipeline

    base = save_pipeline(folder / "base")
    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(40, 80, 160, 160),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    pipe.save_pretrained(base)
    targets = {"unet": (*ATTENTION, "ff.net.2"), "text_encoder": ("q_proj", "v_proj")}
    refs = []
    for seed in range(2):
        adapter = random_adapter(pipe, targets, rank=rank, seed=seed, size=0.01)
        refs.append(str(save_adapter(adapter, folder / str(seed)).parent))
    return str(base), refs


if __name__ == "__main__":
    main()
