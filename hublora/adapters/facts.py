"""Facts about an adapter from the header of its file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from hublora.adapters.adapter import AdapterFacts
from hublora.adapters.alpha import stated_alphas
from hublora.adapters.header import Header
from hublora.adapters.layer_specs import LayerSpec, read_layer_specs
from hublora.adapters.metadata import facts_of_metadata
from hublora.adapters.tensor_names import detect_layout
from hublora.families.registry import architecture_of_kohya, architecture_of_layers, speed_of

# Modules right around a layer, which a dotted name leaves out.
_OWNERS = re.compile(r"\A(?:.*_)?(?:attn\d?|self_attn|mlp|ff)_(?=\D)")


def facts_from_header(
    header: Header, config: Mapping[str, Any] | None = None, **more: Any
) -> AdapterFacts:
    """Return the facts about an adapter that the header of its file states.

    Args:
        header: Header of the adapter's file.
        config: `adapter_config.json` of a PEFT folder; None without one.
        more: Further facts (card, ref, size), which take precedence over the header.

    Raises:
        AdapterError: The tensors are not those of an adapter.
    """
    layout = detect_layout(header.shapes)
    layers = read_layer_specs(header.shapes)
    each = [layer for modules in layers.values() for layer in modules.values()]
    targets = {_target(module, layout) for modules in layers.values() for module in modules}
    facts = AdapterFacts(
        components=tuple(sorted(layers)),
        ranks=tuple(sorted({layer.rank for layer in each if layer.rank})),
        alphas=stated_alphas(header.metadata, config),
        targets=tuple(sorted(targets)),
        parameters=sum(math.prod(shape) for shape in header.shapes.values()),
        dtype=next(iter(sorted(set(header.dtypes.values()))), None),
        layout=layout,
        methods=tuple(sorted({layer.method for layer in each})),
        architecture=architecture(layers) or stated_architecture(header.metadata),
    )
    known = {"base_model": _text((config or {}).get("base_model_name_or_path"))}
    stated = facts_of_metadata(header.metadata)
    speed = stated.get("speed") or more.get("speed") or speed_of([stated.get("title", "")])
    known |= stated | {key: value for key, value in more.items() if value}
    in_file = str(stated.get("base_model", ""))
    if in_file.startswith(f"{known.get('base_model')}/"):  # a card names the repo of a single file
        known["base_model"] = in_file
    return AdapterFacts(**{**facts.__dict__, **known, "speed": speed})


def facts_of_tokens(header: Header, **more: Any) -> AdapterFacts:
    """Return the facts in the header of a file of learned tokens; `more` takes precedence."""
    known = facts_of_metadata(header.metadata)
    known |= {key: value for key, value in more.items() if value}
    return AdapterFacts(
        methods=("textual-inversion",),
        parameters=sum(math.prod(shape) for shape in header.shapes.values()),
        dtype=next(iter(sorted(set(header.dtypes.values()))), None),
        architecture=stated_architecture(header.metadata),
        **known,
    )


def architecture(layers: Mapping[str, Mapping[str, LayerSpec]]) -> str | None:
    """Return the modelspec name of the base models with such layers, None if undetermined."""
    return architecture_of_layers(
        {
            component: {module: layer.inputs for module, layer in modules.items()}
            for component, modules in layers.items()
        }
    )


def stated_architecture(metadata: Mapping[str, str]) -> str | None:
    """Return the modelspec name that modelspec's or kohya's keys state, None without them."""
    stated = metadata.get("modelspec.architecture", "").partition("/")[0]
    return stated or architecture_of_kohya(metadata.get("ss_base_model_version", ""))


def _target(module: str, layout: str) -> str:
    if layout == "kohya":  # with _ for .: the name after the last number is the layer's own
        own = _OWNERS.sub("", re.split(r"_\d+_(?=\D)", module)[-1])
        return re.sub(r"_(\d+)\Z", r".\1", own)
    parts = module.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
