"""Builds the context of the card template: facts as texts that are escaped for Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from hublora import quoting
from hublora.cards import licenses, markdown, metadata, textual_inversion
from hublora.cards import reproduce as remaking
from hublora.cards.facts import CardFacts, GalleryImage, LicenseFacts, RepoFacts, TrainingFacts
from hublora.cards.format import (
    format_count,
    format_environment,
    format_image_source,
    format_sampling,
    format_size,
    format_value,
)
from hublora.cards.user_sections import defuse, mark
from hublora.progress import format_duration

_INVITATION = """\
<!-- What is it for, and what is it not for? Write it here: what stands between these markers is
yours, and the next push keeps it. Remove the markers, and the whole text is yours. -->"""


def view(facts: CardFacts) -> dict[str, Any]:
    """Return the variables of the template `cards/adapter.md.jinja`."""
    prompt = _example_prompt(facts)
    license = metadata.license_of(facts).id
    again = defuse(facts.training.command or "").strip()
    return {
        "title": markdown.inline(facts.title),
        "base": _repo(facts.used_base, "its base model"),
        "trained_base": _repo(facts.base, "a base model that is not published")
        if facts.generation_base
        else None,
        "training_set": _training_set(facts),
        "size": _size(facts),
        "own_words": mark(defuse(facts.description).strip() or _INVITATION),
        "before_after": facts.before_after,
        "triggers": [markdown.code(word) for word in facts.trigger_words],
        "fence": markdown.fence(prompt, again),
        "ref": facts.repo_id or ".",
        "repo_id": facts.repo_id,
        "folder_ref": quoting.python_text(facts.repo_id or "."),
        "shell_prompt": quoting.shell_word(prompt),
        "python_prompt": quoting.python_text(prompt),
        "pipeline_class": facts.pipeline_class,
        "base_is_known": facts.used_base.id is not None,
        "base_flag": "" if facts.used_base.id else " --base path/to/the/base",
        "base_keyword": "" if facts.used_base.id else ', base="path/to/the/base"',
        "base_ref": quoting.python_text(facts.used_base.id or "path/to/the/base"),
        "base_revision": quoting.python_text(facts.used_base.revision)
        if facts.used_base.revision
        else None,
        "single_file": _single_file(facts),
        "dtype": facts.dtype,
        "weight_name": quoting.python_text(facts.weight_name) if facts.weight_name else None,
        "kind": textual_inversion.kind(facts),
        "noun": "adapter" if facts.weight_name else "token embedding",
        "embeddings": textual_inversion.loading(facts),
        "embedding_link": textual_inversion.for_comfyui(facts),
        "call": _call_arguments(facts),
        "hublora_prompt": textual_inversion.in_hublora(facts, quoting.python_text(prompt)),
        "inpaints": "Inpaint" in facts.pipeline_class,
        "prompt_keyword": "" if facts.prompt_first else "prompt=",
        "reference_flags": "".join(f" --reference {name}" for name in _reference_files(facts)),
        "references": _references(facts),
        "kohya": _kohya(facts),
        "comfyui_reads": _file_link(facts, facts.weight_name)
        if facts.weight_name and facts.one_file
        else None,
        "sampling": format_sampling(facts.sampling),
        "gallery": [format_image_source(image) for image in facts.gallery],
        "made": _made(facts),
        "loss_plot": facts.training.loss_plot,
        "settings": _rows((name, format_value(v)) for name, v in facts.training.settings.items()),
        "environment": _rows(format_environment(facts.environment)),
        "again": again,
        "commands": remaking.commands(facts),
        "needs": remaking.needs(facts.training.unpublished),
        "config_path": facts.training.config_path,
        "license_note": licenses.note(license, license),
        "license": _license_sentences(facts),
        "hublora_version": markdown.inline(facts.hublora_version),
    }


def _example_prompt(facts: CardFacts) -> str:
    prompts = [image.prompt for image in facts.gallery if image.prompt.strip()]
    return prompts[0] if prompts else ", ".join(facts.trigger_words) or "your prompt"


def _reference_files(facts: CardFacts) -> list[str]:
    """Return the names of the reference images in the card's calls."""
    return [f"image{number or ''}.png" for number in (0, *range(2, facts.references + 1))][
        : facts.references
    ]


def _references(facts: CardFacts) -> str | None:
    """Return Python code of the reference images; None without any."""
    loads = [f'load_image("{name}")' for name in _reference_files(facts)]
    if len(loads) > 1:
        return f"[{', '.join(loads)}]"
    return loads[0] if loads else None


def _repo(source: RepoFacts, otherwise: str, kind: str = "") -> str:
    return markdown.repo_link(source.id, kind) if source.id else otherwise


def _dataset(facts: CardFacts) -> str:
    return _repo(facts.dataset, "", "datasets/")


def _training_set(facts: CardFacts) -> str:
    images = facts.training.images
    number = format_count(images, "image") if images else "images"
    if facts.dataset.id is None:
        return f"{number} that are not published"
    return f"{number} from {_dataset(facts)}"


def _size(facts: CardFacts) -> str | None:
    """Return the size of the learned files as the beginning of a sentence; None if unknown."""
    if facts.size is None:
        return None
    learned = facts.token_embeddings
    if learned is None or learned.size is None:
        return f"It is one file of {format_size(facts.size)}"
    noun = "embeddings" if len(learned.lengths) > 1 else "embedding"
    total = format_size(facts.size + learned.size)
    return f"The adapter and the token {noun} are two files of {total} together"


def _call_arguments(facts: CardFacts) -> list[str]:
    first = facts.gallery[0] if facts.gallery else GalleryImage("", "")
    sampling = facts.sampling
    stated = facts.call or {
        "negative_prompt": first.negative_prompt or None,
        "guidance_scale": sampling.guidance,
    }
    call = {
        name: quoting.python_text(value) if isinstance(value, str) else value
        for name, value in stated.items()
    }
    arguments = {
        "negative_prompt": call.pop("negative_prompt", None),
        "num_inference_steps": sampling.steps,
        **call,
        "width": sampling.width,
        "height": sampling.height,
        "generator": f"torch.Generator().manual_seed({first.seed})"
        if first.seed is not None
        else None,
    }
    return [f"{name}={given}" for name, given in arguments.items() if given is not None]


def _kohya(facts: CardFacts) -> dict[str, str] | None:
    if not facts.kohya_path:
        return None
    path = facts.kohya_path
    name = path.rpartition("/")[2].removesuffix(".safetensors")
    return {"link": _file_link(facts, path), "tag": markdown.code(f"<lora:{name}:1>")}


def _file_link(facts: CardFacts, path: str) -> str:
    """Return a file's name as a link to its download; the name alone before it has a repo."""
    link = markdown.code(path)
    return f"[{link}](/{facts.repo_id}/resolve/main/{quote(path)})" if facts.repo_id else link


def _made(facts: CardFacts) -> list[tuple[str, str]]:
    training = facts.training
    loss, speed, memory = training.final_loss, training.images_per_second, training.peak_memory
    repos = [
        ("Base model", _repo(facts.base, "")),
        ("Base revision", markdown.inline(facts.base.revision or "")),
        ("Base file", markdown.inline(facts.base.file or "")),
        ("SHA-256 of the base file", markdown.inline(facts.base.sha256 or "")),
        ("Components of the base", markdown.inline(facts.base.components or "")),
        *_generated_with(facts),
        ("Dataset", _dataset(facts)),
        ("Dataset revision", markdown.inline(facts.dataset.revision or "")),
    ]
    texts = [
        ("Images", format_value(training.images)),
        ("Captions", format_value(training.captions_from)),
        ("Components", format_value(facts.components)),
        ("Target layers", format_value(facts.targets)),
        ("Rank", format_value(facts.rank)),
        ("Alpha", format_value(facts.alpha)),
        ("Steps", _steps(training)),
        ("Final loss", f"{loss:.4g}" if loss is not None else None),
        ("Duration", format_duration(training.seconds) if training.seconds else None),
        ("Images per second", f"{speed:.3g}" if speed else None),
        ("Peak memory", format_size(memory) if memory else None),
    ]
    return [row for row in repos if row[1]] + _rows(texts)


def _single_file(facts: CardFacts) -> dict[str, str] | None:
    """Return Python texts of the code that loads a single file as base; None for a pipeline."""
    base = facts.used_base
    if base.file is None or facts.denoiser is None:
        return None
    place = (base.id or "", base.file, base.revision or "")
    repo, file, revision = map(quoting.python_text, place)
    download = f"hf_hub_download({repo}, {file}, revision={revision})"
    components, _, commit = (base.components or "path/to/its/components").partition("@")
    component, kind = facts.denoiser
    return {
        "path": download if base.id and base.revision else file,
        "downloads": "yes" if base.id else "",
        "components": quoting.python_text(components),
        "revision": quoting.python_text(commit) if commit else "",
        "component": component if component != "unet" else "",
        "kind": kind,
    }


def _generated_with(facts: CardFacts) -> list[tuple[str, str]]:
    other = facts.generation_base
    if other is None:
        return []
    return [
        ("Generation base", _repo(other, "")),
        ("Revision of the generation base", markdown.inline(other.revision or "")),
    ]


def _steps(training: TrainingFacts) -> str | None:
    """Return the number of steps, and which step's weights the adapter is if not the last one's."""
    if training.steps is None or training.result_step in (None, training.steps):
        return format_value(training.steps)
    last = f"{training.steps:,}"
    return f"{training.result_step:,} of {last}: the held-out loss of step {last} is higher"


def _rows(pairs: Iterable[tuple[str, str | None]]) -> list[tuple[str, str]]:
    return [(markdown.inline(name), markdown.inline(text)) for name, text in pairs if text]


def _license_sentences(facts: CardFacts) -> list[str]:
    own, base = metadata.license_of(facts), _repo(facts.base, "the base model")
    sentences = []
    if own.id is None:
        sentences.append(f"The licence of {base} is unknown, so this adapter names none either.")
    elif facts.license is None:
        sentences.append(
            f"The licence of {base} is {_license_name(own)}; what is trained from it inherits that."
        )
    else:
        sentences.append(f"The adapter's licence is {_license_name(own)}.")
    if facts.dataset.id is None:
        sentences.append("The images are not published, and their licence is unknown here.")
    else:
        dataset = facts.dataset.license
        sentences.append(
            f"The licence of {_dataset(facts)} is {_license_name(dataset)}."
            if dataset.id
            else f"{_dataset(facts)} names no licence for its images: it is unknown."
        )
    other = facts.generation_base
    if other is not None and other.license.id != facts.base.license.id:
        name = _license_name(other.license) if other.license.id else "unknown"
        sentences.append(f"The licence of {_repo(other, 'the generation base')} is {name}.")
    if facts.license is None and not facts.dataset.license.id:
        sentences.append("Whether commercial use is allowed is therefore unknown.")
    return sentences


def _license_name(license: LicenseFacts) -> str:
    name = markdown.inline(license.name or license.id or "unknown")
    if license.link and license.link.startswith("https://"):
        return f"[{name}](<{license.link.translate(_URL_BREAKERS)}>)"
    return f"**{name}**"


_URL_BREAKERS = {ord(character): None for character in "<>\\\n\r\t "}
