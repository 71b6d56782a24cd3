"""`--fit` of a transformer: what its step takes is computed from its config alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hublora
from hublora.errors import ConfigError
from hublora.families import DenoiserInputs, family_of_pipeline
from hublora.memory.estimate import MemoryPlan, bare_pipeline, denoiser_cost
from hublora.memory.fit import choose_plan
from tests.flow_pipelines import FLOW_PIPELINES
from tools.family_memory import FILE, cost_of, row
from tools.published_shapes import PUBLISHED

SIZE = (64, 64)


def cost(name: str) -> Any:
    pipe = FLOW_PIPELINES[name]()
    family, model = family_of_pipeline(pipe), pipe.transformer.to("meta")
    ranks = {name: 2 for name, _ in model.named_modules() if name.endswith(("to_q", "to_v"))}
    return denoiser_cost(family, bare_pipeline(family, model), ranks, SIZE)


@pytest.mark.parametrize("name", ["flux-dev", "z-image", "qwen-image"])
def test_checkpointing_keeps_what_was_computed_for_it(name: str) -> None:
    """Counted on the meta device, and by autograd on the CPU."""
    from peft import LoraConfig

    pipe = FLOW_PIPELINES[name]()
    family, model = family_of_pipeline(pipe), pipe.transformer.requires_grad_(False)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    model.train().enable_gradient_checkpointing()
    shapes = family.conditioning_shapes(model.config)
    inputs = DenoiserInputs(
        torch.zeros(1, *family.latent_shape(model.config, SIZE)),
        torch.tensor([0.5]),
        {key: torch.ones(1, *shape) for key, shape in shapes.items()},
        torch.zeros(1, 6),
        torch.ones(1),
    )
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: dict[int, int] = {}

    def keep(one: torch.Tensor) -> torch.Tensor:
        storage = one.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        prediction = family.predict(pipe, model, inputs)
    del prediction
    found = cost(name)
    computed = sum(block.inputs for block in found.blocks) + found.kept
    assert computed == pytest.approx(sum(kept.values()), rel=0.35)


def test_each_way_takes_less() -> None:
    found = cost_of(PUBLISHED["FLUX.2 klein 4B"])
    count = len(found.blocks)
    assert count == 25

    def needed(*plan: Any) -> int:
        return found.step_bytes(MemoryPlan(*plan), 16)

    assert needed(None, 0, False, 1) > needed(None, 0, True, 1) > needed("int8", 0, True, 1)
    assert needed("int8", 0, True, 1) > needed("nf4", 0, True, 1)
    assert needed(None, 0, True, 2) > needed(None, 0, True, 1) > needed(None, count, True, 1)
    swapped = MemoryPlan(None, count, True, 1)
    assert found.host_bytes(swapped) == sum(block.linear for block in found.blocks) * 2


def test_the_fastest_plan_that_fits_is_chosen() -> None:
    found = cost("z-image")
    usual: dict[str, Any] = {
        "kinds": [None, "int8"],
        "checkpointing": [False, True],
        "swapped": None,
        "batch_sizes": [1, 2],
        "bytes_per_trained": 16,
    }
    plenty = choose_plan(found, lambda kind: 0, 1 << 40, **usual)
    assert plenty == MemoryPlan(None, 0, False, 2)
    assert choose_plan(found, lambda kind: 0, 1 << 20, **usual) is None
    assert choose_plan(found, lambda kind: 1 << 40, 1 << 40, **usual) is None
    large = {None: 1 << 40, "int8": 0}
    quantised = choose_plan(found, lambda kind: large[kind], 1 << 40, **usual)
    assert quantised is not None
    assert quantised.quantize == "int8"  # text encoders do not fit otherwise


@pytest.mark.parametrize(("label", "weights"), [("FLUX.2 klein 4B", 3.88), ("Z-Image", 6.15)])
def test_the_page_states_what_is_computed_for_published_sizes(label: str, weights: float) -> None:
    found = cost_of(PUBLISHED[label])
    stated = json.loads(FILE.read_bytes())
    assert row(PUBLISHED[label], found) == stated[label]
    assert stated[label]["8"] is not None
    assert stated["Krea 2"]["12"] is not None
    total = sum(one.linear + one.others / 2 for one in found.blocks) + found.others / 2
    assert total / 1e9 == pytest.approx(weights, abs=0.01)


def test_fit_chooses_from_configs_alone_and_says_that_it_computed(tmp_path: Path) -> None:
    base = tmp_path / "tiny-z-image"
    FLOW_PIPELINES["z-image"]().save_pretrained(base)
    for weights in base.glob("*/*.safetensors"):
        weights.write_bytes(b"")  # nothing of them is read
    config = hublora.TrainingConfig.from_settings(
        {
            "base.model": str(base),
            "data.folder": tmp_path,
            "data.resolution": 64,
            "train_batch_size": 2,
            "gradient_accumulation_steps": 2,
        }
    )
    notes: list[str] = []
    fitted = hublora.fit(config, 2, callback=lambda event: notes.append(str(event)))
    assert (fitted.train_batch_size, fitted.gradient_accumulation_steps) == (4, 1)
    assert not fitted.gradient_checkpointing
    assert fitted.base.quantize is fitted.base.offload is None
    assert any("of 2.0 GiB (computed, not measured)" in note for note in notes)
    with pytest.raises(ConfigError, match=r"in int8 and all blocks swapped needs .* \(computed\)"):
        hublora.fit(config, 0.1)
