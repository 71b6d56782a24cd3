"""Prints what tiny trainings, generations, compositions and merges come to, as SHA-256.

A change that should not move numbers prints the same lines before and after, on one machine:

    python tools/fingerprints.py > before.json      # … the change …
    python tools/fingerprints.py before.json        # says what moved; 1 if anything did

Hashed are the tensors (names, shapes, bytes) and the pixels, not the files: their metadata holds
words, which may change.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TRAININGS: dict[str, dict[str, Any]] = {
    "text-to-image": {},
    "velocity": {"base.model": "bases/velocity", "objective.snr_gamma": 5.0},
    "xl": {"base.model": "bases/xl", "adapter.text_encoder": True},
    "inpainting": {"base.model": "bases/inpainting"},
    "dora": {"adapter.method": "dora", "adapter.text_encoder": True},
    "loha": {"adapter.method": "loha", "adapter.conv_rank": 2},
    "lokr": {"adapter.method": "lokr"},
    "pissa": {"adapter.init": "pissa", "adapter.ema_decay": 0.5},
    "noise": {
        "objective.noise_offset": 0.1,
        "objective.pyramid_noise": 0.3,
        "objective.input_perturbation": 0.1,
        "objective.huber": 0.1,
        "data.random_flip": True,
        "data.caption_dropout": 0.3,
        "gradient_accumulation_steps": 2,
    },
    "preset": {"preset": "style", "train_batch_size": 2},
    "dreambooth": {
        "method": "dreambooth",
        "dreambooth.instance_prompt": "a photo of sks star",
        "dreambooth.class_prompt": "a photo of a star",
        "dreambooth.prior_preservation": True,
        "dreambooth.num_class_images": 2,
    },
    "textual-inversion": {"method": "textual-inversion", "tokens.placeholders": ["<new>"]},
    "pivotal": {"method": "pivotal", "tokens.placeholders": ["<new>"], "tokens.num_vectors": 2},
}
SAMPLING = {"num_inference_steps": 4, "guidance_scale": 2.0}


def tensors_hash(file: Path) -> str:
    """Return the SHA-256 of a safetensors file's names, shapes and values."""
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def pixels_hash(image: Any) -> str:
    """Return the SHA-256 of an image's size and RGB values; of a file or a PIL image."""
    from PIL import Image

    if isinstance(image, Path):
        image = Image.open(image)
    return hashlib.sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest()


def fingerprints(root: Path) -> Iterator[tuple[str, str]]:
    """Yield a name and a hash for every result."""
    import hublora

    def train(name: str, changes: dict[str, Any]) -> Path:
        config = hublora.TrainingConfig.from_settings(
            {
                "base.model": "bases/epsilon",
                "data.dataset": "bases/pictures",
                "schedule.max_train_steps": 4,
                "optimizer.learning_rate": 1e-2,
                "output_dir": root / name,
                "validation.num_images": 1,
                **changes,
            }
        )
        return hublora.train(config).folder

    for name, changes in TRAININGS.items():
        folder = train(name, changes)
        for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")]):
            if not file.parent.name.startswith("checkpoint"):
                yield f"train/{name}/{file.relative_to(folder)}", tensors_hash(file)
        for file in sorted(folder.glob("images/*.png")):
            yield f"train/{name}/image", pixels_hash(file)
    first, second = str(root / "text-to-image"), str(root / "noise")
    for name, refs, options in (
        ("run", [f"{first}:0.7"], {}),
        ("run-dora", [str(root / "dora")], {"scheduler": "EulerDiscreteScheduler"}),
        ("run-xl", [str(root / "xl")], {}),
        ("run-pivotal", [str(root / "pivotal")], {}),
        ("sum", [f"{first}:0.7", f"{second}:-0.5"], {}),
        ("switch", [first, second], {"compose": "switch"}),
        ("composite", [first, second], {"compose": "composite"}),
        ("moving", [first, second], {"weights": {"1": "0..1", "2": "1,mid:0"}}),
    ):
        (file,) = hublora.run(
            refs, "a red star", output=root / f"{name}.png", device="cpu", **options, **SAMPLING
        )
        yield f"run/{name}", pixels_hash(file)
    folder = root / "composition"
    for source, repo in ((first, "me/first"), (second, "me/second")):
        hublora.push(source, repo)
    refs = ["me/first:0.7", "me/second"]
    hublora.compose(refs, output=folder, device="cpu", **SAMPLING)
    for file in sorted(folder.glob("images/*.png")):
        yield "compose/image", pixels_hash(file)
    for method in ("cat", "svd", "linear", "ties", "dare_ties", "magnitude_prune"):
        merge = getattr(hublora, "merge", None)
        if merge is None:
            from hublora.workflows.merges import merge
        folder = root / f"merge-{method}"
        try:
            merge([f"{first}:0.7", f"{second}:0.5"], folder, method=method, gallery=False)
        except hublora.HubloraError as error:
            yield f"merge/{method}", type(error).__name__
        else:
            yield f"merge/{method}", tensors_hash(folder / "pytorch_lora_weights.safetensors")
    hublora.convert(first, "kohya", root / "kohya.safetensors")
    yield "convert/kohya", tensors_hash(root / "kohya.safetensors")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="hublora-fingerprints-") as temporary:
        root = Path(temporary)
        os.environ |= {
            "HF_HOME": str(root / "hf"),
            "HUBLORA_CACHE": str(root / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        import torch

        from hublora.localhub import LocalHub, import_folder
        from tests import tiny

        torch.set_num_threads(1)
        save_images = getattr(tiny, "save_images", None) or tiny.save_pictures
        with_hub = LocalHub.start(root / "hub")
        try:
            os.environ |= with_hub.environ()
            tiny.save_pipeline(root / "epsilon")
            tiny.save_pipeline(root / "velocity", prediction="v_prediction")
            tiny.save_pipeline(root / "inpainting", inpaints=True)
            tiny.save_xl_pipeline(root / "xl")
            save_images(root / "pictures")
            for name in ("epsilon", "velocity", "inpainting", "xl"):
                import_folder(root / "hub", f"bases/{name}", root / name)
            import_folder(root / "hub", "bases/pictures", root / "pictures", repo_type="dataset")
            found: dict[str, str] = {}
            for name, value in fingerprints(root / "runs"):
                while name in found:
                    name += "+"
                found[name] = value
        finally:
            with_hub.stop()
    if len(sys.argv) == 1:
        print(json.dumps(found, indent=1))
        return 0
    before = json.loads(Path(sys.argv[1]).read_text())
    moved = [key for key in {**before, **found} if before.get(key) != found.get(key)]
    for key in moved:
        print(f"{key}: {before.get(key)} -> {found.get(key)}")
    print(f"{len(found) - len(moved)} of {len(found)} are as before")
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main())
