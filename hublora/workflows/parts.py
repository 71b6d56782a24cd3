"""Opens what a composition is made of: from refs to adapters with their learned tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import Adapter
from hublora.hub.layout import WEIGHTS
from hublora.refs import AdapterRef
from hublora.workflows.adapters import embedding_files, load_pinned, pin
from hublora.workflows.progress import Observer, ignore

if TYPE_CHECKING:
    from hublora.generation.embeddings import LearnedToken


@dataclass(frozen=True)
class OpenPart:
    """One adapter of a composition, in memory.

    Attributes:
        asked: The ref as it was given.
        ref: The same, pinned.
        adapter: Its updates and facts.
        tokens: The tokens that it brings along.
    """

    asked: AdapterRef
    ref: AdapterRef
    adapter: Adapter
    tokens: tuple[LearnedToken, ...] = ()

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.adapter.facts.source or self.title

    @property
    def title(self) -> str:
        """A name without a path of this machine in it."""
        if self.ref.kind == "repo":
            return self.ref.location
        path = Path(self.ref.location.partition("?")[0])
        own = path.name != WEIGHTS and path.suffix == ".safetensors"
        folder = path if path.suffix != ".safetensors" else path.parent
        return self.adapter.facts.title or (path.stem if own else folder.resolve().name)

    def facts(self) -> dict[str, Any]:
        """Return what a picture says about it; of a local file its title, not its path."""
        facts = self.adapter.facts
        named = {"title": self.title} if self.ref.kind == "local" else {"ref": self.ref.public}
        asked = {"revision": self.asked.revision} if self.asked.revision else {}
        return {**named, **asked, "weight": self.ref.weight, "sha256": facts.sha256}


def open_parts(refs: Sequence[AdapterRef], observer: Observer = ignore) -> list[OpenPart]:
    """Bring the adapters to this machine and read them.

    Raises:
        NotFoundError: A repo, revision or file is not there.
        AdapterError: A file is broken or no adapter.
    """
    return [_open(ref, observer) for ref in refs]


def _open(ref: AdapterRef, observer: Observer) -> OpenPart:
    resolved, path = pin(ref, observer)
    adapter = load_pinned(resolved, path)
    files = embedding_files(path)
    if not files:
        return OpenPart(ref, resolved.ref, adapter)
    from hublora.generation.embeddings import read_tokens

    tokens = tuple(token for file in files for token in read_tokens(file))
    return OpenPart(ref, resolved.ref, adapter, tokens)
