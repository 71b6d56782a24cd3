"""What the metadata of a card may hold: the Hub's own rules, told before a commit is made.

https://huggingface.co/docs/hub/repositories-licenses and
https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

from typing import Any

from hublora.hub_licenses import LICENSES

_TEXTS = ("license_name", "license_link", "pipeline_tag", "library_name", "instance_prompt")
_LISTS = ("tags", "datasets", "language", "base_model")
RELATIONS = ("adapter", "finetune", "merge", "quantized")


def errors(card: dict[str, Any]) -> list[str]:
    """Return what keeps a card from being committed, a sentence each."""
    wrong = [
        f'"{name}" must be a string'
        for name in _TEXTS
        if not isinstance(card.get(name), str | None)
    ]
    for name in _LISTS:
        if not all(isinstance(item, str) for item in _items(card.get(name))):
            wrong.append(f'"{name}" must be a string or a list of strings')
    relation = card.get("base_model_relation")
    if relation is not None and relation not in RELATIONS:
        wrong.append(f'"base_model_relation" must be one of [{", ".join(RELATIONS)}]')
    if not all(item in LICENSES for item in _items(card.get("license")) if isinstance(item, str)):
        known = ", ".join(sorted(LICENSES))
        wrong.append(f'"license" must be one of [{known}]; others are "other" with "license_name"')
    elif not all(isinstance(item, str) for item in _items(card.get("license"))):
        wrong.append('"license" must be a string or a list of strings')
    return [*wrong, *_model_index(card.get("model-index"))]


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _model_index(value: object) -> list[str]:
    """Return what is wrong with the evaluation results of a card."""
    if value is None:
        return []
    if not isinstance(value, list):
        return ['"model-index" must be an array']
    wrong = []
    for i, model in enumerate(value):
        here = f"model-index[{i}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            wrong.append(f'"{here}.name" must be a string')
        elif not isinstance(model.get("results"), list):
            wrong.append(f'"{here}.results" must be an array')
        else:
            for j, result in enumerate(model["results"]):
                wrong += _result(result, f"{here}.results[{j}]")
    return wrong[:20]


def _result(value: object, here: str) -> list[str]:
    result = value if isinstance(value, dict) else {}
    wrong = []
    for name, keys in (("task", ("type",)), ("dataset", ("type", "name"))):
        part = result.get(name)
        for key in keys:
            if not isinstance(part, dict) or not isinstance(part.get(key), str):
                wrong.append(f'"{here}.{name}.{key}" must be a string')
    metrics = result.get("metrics")
    if not isinstance(metrics, list):
        return [*wrong, f'"{here}.metrics" must be an array']
    for k, metric in enumerate(metrics):
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str):
            wrong.append(f'"{here}.metrics[{k}].type" must be a string')
        elif "value" not in metric:
            wrong.append(f'"{here}.metrics[{k}].value" is required')
    return wrong
