"""Checks the folders of models before diffusers or transformers opens them: no code, no pickle,
and sizes that the weights beside them bear out.

Both libraries follow what a folder's JSON files name: classes of any installed library, Python
files, and weights under any file name, which are unpickled unless they end in `.safetensors`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hublora.adapters.header import read_file_header
from hublora.errors import AdapterError, NotFoundError
from hublora.families import Family

INDEX = "model_index.json"
_CONFIGS = (
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
_CONFIG_BYTES, _JSON_BYTES = 1 << 20, 64 << 20
_MOST_NUMBER = 1 << 20  # the largest in a published config is a vocabulary of 250,002
_UNSET_LENGTH = 10**29  # transformers writes int(1e30) where a tokenizer states no length
# Keys that make transformers or diffusers import code, or open weights of another name.
_CODE_KEYS = ("auto_map", "custom_pipelines", "quantization_config", "transformers_weights")
_HOSTILE = "The file is damaged or hostile: take another base model."
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2")  # others are names of Hub repos
_ANOTHER_PRECISION = re.compile(r"\.(fp16|bf16|non_ema)[.-]")


def check_pipeline_folder(
    folder: Path, family: Family, label: str, without: Collection[str] = ()
) -> None:
    """Check a pipeline's folder before diffusers opens it.

    Args:
        folder: With `model_index.json`.
        family: Family of the pipeline.
        label: The base model, in messages.
        without: Components that are not opened.

    Raises:
        NotFoundError: A component is missing, or a JSON file does not parse.
        AdapterError: It names code, a pickle, a class that the family does not have, or sizes that
            no model has.
    """
    index = read_json(folder / INDEX, label)
    _refuse_code(index, f"{label}/{INDEX}")
    for name, classes in family.component_classes.items():
        if not isinstance(index.get(name), list):
            raise NotFoundError(
                f"{label} is not complete: its {INDEX} has no {name}.",
                f"A {family.name} pipeline has {', '.join(family.component_classes)}.",
            )
        _check_class(name, index[name], classes, label)
        if name not in without:
            _check_component_folder(folder / name, f"{label}/{name}")
    for name, stated in index.items():
        if name in family.component_classes or name in family.unloaded_components:
            continue
        if not _names_class(stated):  # a setting, or [null, null] for a component that is missing
            continue
        _check_class(name, stated, family.optional_component_classes.get(name, ()), label)
        if name not in without:
            _check_component_folder(folder / name, f"{label}/{name}")


def _names_class(stated: Any) -> bool:
    """Tell whether an entry of the index is a component: library and class, and not two numbers."""
    return isinstance(stated, list) and any(isinstance(one, str) for one in stated)


def _check_component_folder(folder: Path, label: str) -> None:
    check_model_folder(folder, label)
    if code := sorted(folder.glob("*.py")):  # diffusers takes it for the component's class
        raise AdapterError(
            f"{label}/{code[0].name} is code, which hublora never runs.", "Remove it."
        )


def check_model_folder(folder: Path, label: str, *, weights: bool = True) -> None:
    """Check the folder of one model, tokenizer or scheduler before a library opens it.

    Args:
        folder: With its JSON files and safetensors.
        label: The model, in messages.
        weights: Whether its weights are there.

    Raises:
        NotFoundError: A JSON file does not parse.
        AdapterError: It names code or a pickle, its weights are no safetensors, or it states sizes
            that its weights do not have.
    """
    check_names_no_code(folder, label)
    for path in _configs(folder):
        _check_numbers(read_json(path, label), f"{label}/{path.name}")
    if weights and (folder / "config.json").is_file():
        _check_layer_count(folder, label)


def check_names_no_code(folder: Path, label: str) -> None:
    """Check that a folder's JSON files name no code and no weights but safetensors beside them.

    Args:
        folder: With its JSON files and safetensors.
        label: The model, in messages.

    Raises:
        NotFoundError: A JSON file does not parse.
        AdapterError: One names code or a pickle, or is too long.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder of {label}.", "Download the model again.")
    for path in sorted(folder.iterdir()):
        where = f"{label}/{path.name}"
        if path.name == "adapter_config.json":
            raise AdapterError(f"{where} makes of this model another one.", "Remove it.")
        if path.suffix == ".json" and path.stat().st_size > _JSON_BYTES:
            raise AdapterError(
                f"{where} has {path.stat().st_size:,} bytes; at most {_JSON_BYTES:,} are read."
            )
        if ".safetensors.index" in path.name and path.suffix == ".json":
            _check_shards(path, where)
    for path in _configs(folder):
        _refuse_code(read_json(path, label), f"{label}/{path.name}")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model, in full precision if it has them."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if not _ANOTHER_PRECISION.search(file.name)] or files


def count_elements(folder: Path) -> int:
    """Return the numbers in a model's weights, by their headers.

    Raises:
        AdapterError: A file is not complete, or no safetensors.
    """
    headers = (read_file_header(path) for path in weight_files(folder))
    return sum(math.prod(shape) for header in headers for shape in header.shapes.values())


def read_json(path: Path, label: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        NotFoundError: The file is missing, too long, or no JSON object.
    """
    try:
        if path.stat().st_size > _CONFIG_BYTES and path.name in (*_CONFIGS, INDEX):
            raise ValueError("it is too long")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is no object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise NotFoundError(
            f"{path.name} of {label} cannot be read: {' '.join(str(error).split())[:120]}",
            "Check the file, or download it again.",
        ) from error


def _check_class(
    name: str, stated: list[Any], allowed: Collection[tuple[str, str]], label: str
) -> None:
    if any(stated == [*one] for one in allowed):
        return
    choices = ", ".join(".".join(one) for one in allowed) or "none"
    raise AdapterError(
        f"The {name} of {label} is of the class {'.'.join(map(str, stated))[:80]}, which hublora "
        "does not load.",
        f"Allowed are: {choices}.",
    )


def _configs(folder: Path) -> list[Path]:
    return [folder / name for name in _CONFIGS if (folder / name).is_file()]


def _refuse_code(config: Mapping[str, Any], where: str) -> None:
    for one in _objects(config):
        for key in _CODE_KEYS:
            if one.get(key):
                raise AdapterError(
                    f"{where} has {key}, with which a model brings code or another library.",
                    "Take a model without it.",
                )
        for key, value in one.items():
            if "attn_implementation" in key and value not in (*_ATTENTIONS, True, False):
                raise AdapterError(
                    f"{where} takes its attention from {value!r}.",
                    f"Allowed are: {', '.join(filter(None, _ATTENTIONS))}.",
                )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield a JSON object and the objects in it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _check_numbers(config: Mapping[str, Any], where: str) -> None:
    for key, value in config.items():
        unset = key == "model_max_length" and isinstance(value, int) and value >= _UNSET_LENGTH
        for number in [] if unset else _numbers(value):
            # Schedulers state an infinite bound where there is none.
            if not abs(number) <= _MOST_NUMBER and number not in (math.inf, -math.inf):
                raise AdapterError(
                    f"{where} states {number:.6g} as {key}; at most {_MOST_NUMBER:,} is loaded.",
                    _HOSTILE,
                )


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers in a value of JSON, inside of lists and objects too."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield one


def _check_shards(path: Path, where: str) -> None:
    shards = read_json(path, where).get("weight_map")
    if not isinstance(shards, dict):
        raise NotFoundError(f"{where} has no weight_map.")
    for name in set(map(str, shards.values())):
        if not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
            raise AdapterError(
                f"{where} names {name!r} as weights; only .safetensors files beside it are opened.",
                "Take a base model in safetensors.",
            )


def _check_layer_count(folder: Path, label: str) -> None:
    """Check that a model's config states no more layers than its weights have tensors."""
    tensors = sum(len(read_file_header(path).shapes) for path in weight_files(folder))
    for config in _objects(read_json(folder / "config.json", label)):
        layers = 1
        for key, value in config.items():
            if "layers" in key and key.startswith(("num_", "layers_", "transformer_layers_")):
                layers *= max(1, int(max(_numbers(value), default=1)))
        lists = (len(own) for key, own in config.items() if "block" in key if isinstance(own, list))
        layers *= max(lists, default=1)
        if layers > tensors:
            raise AdapterError(
                f"The config of {label} states {layers:,} layers; its weights have {tensors:,} "
                "tensors.",
                _HOSTILE,
            )
