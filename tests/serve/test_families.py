"""The engine knows no family: requests of every one of them share batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hublora.localhub import import_folder
from tests.flow_pipelines import FLOW_PIPELINES
from tests.lora import random_adapter, save_adapter
from tests.serve.meeting import PATIENT, meet


@pytest.mark.parametrize(
    ("name", "quantize"),
    [
        ("sdxl", None),
        *((name, None) for name in FLOW_PIPELINES),
        ("z-image", "int8"),
        ("sdxl", "fp8"),
    ],
)
def test_an_image_has_the_same_bits_whoever_is_in_its_batch(
    name: str, quantize: Any, hub: object, hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    from hublora.families import family_of_pipeline
    from hublora.serve.engine import Engine
    from hublora.serve.requests import GenerationRequest, parse_model
    from hublora.serve.settings import EngineSettings

    base = bases / "xl"
    if name != "sdxl":
        base = tmp_path / f"tiny-{name}"
        FLOW_PIPELINES[name]().save_pretrained(base)
    engine = Engine(str(base), EngineSettings("cpu", "float32", quantize, patience=PATIENT))
    try:
        pipe = engine.pipeline
        targets = dict(family_of_pipeline(pipe).default_targets)
        for seed in (1, 2):
            adapter = random_adapter(pipe, targets, rank=3 * seed, seed=seed, size=0.2)
            save_adapter(adapter, tmp_path / str(seed), base.name)
            import_folder(hub_data, f"served/{name}-{seed}", tmp_path / str(seed))
        one, both = f"served/{name}-1", f"served/{name}-1:0.5|served/{name}-2"
        wanted = [(one, 32, 32), (both, 32, 32), ("", 32, 32), (one, 64, 32), ("", 32, 64)]
        requests = [
            GenerationRequest(
                "a red cat",
                parse_model(model, bases=(), allow_urls=False),
                {"num_inference_steps": 2, "width": width, "height": height, "seed": 5},
            )
            for model, width, height in wanted
        ]
        alone = [engine.submit(one).result().png for one in requests]
        assert len(set(alone)) == len(wanted)
        assert [one.png for one in meet(engine, requests)] == alone
        assert max(engine.batch_sizes) > 1
    finally:
        engine.close()
