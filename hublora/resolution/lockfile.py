"""The lockfile of a composition: every adapter by commit, file and hash.

A composition is a repo without weights of its own. Its `hublora.lock.json` records its adapters,
their weights, how they are combined, and the base.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hublora._version import __version__
from hublora.adapter_weights import CompositionMode, Weight
from hublora.errors import AdapterError, HubloraError, NotFoundError
from hublora.quoting import one_line
from hublora.refs import AdapterRef, RepoId, Revision, parse_repo_id, parse_revision

_MAX_BYTES = 1_000_000
_HEX = r"^[0-9a-f]{%d}$"
License = Annotated[str, AfterValidator(one_line)] | None


def _checked_weight(text: str) -> str:
    Weight.parse(text)
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LockedPart(_Strict):
    """One adapter of a composition.

    Attributes:
        repo: owner/name.
        revision: Branch or tag that `hublora update` follows; None for the main branch.
        commit: 40 hexadecimal digits.
        file: Path in the repo, ending in .safetensors.
        sha256: Hash of the file, 64 hexadecimal digits.
        weight: A number or a schedule, as `hublora.adapter_weights` writes it.
        license: Licence id of the card; None if that names none.
    """

    repo: Annotated[RepoId, AfterValidator(parse_repo_id)]
    revision: Annotated[Revision, AfterValidator(parse_revision)] | None = None
    commit: str = Field(pattern=_HEX % 40)
    file: str = Field(pattern=r"\.safetensors$", max_length=1000)
    sha256: str = Field(pattern=_HEX % 64)
    weight: Annotated[str, AfterValidator(_checked_weight)]
    license: License = None

    @property
    def ref(self) -> AdapterRef:
        """The adapter at its commit and file."""
        name = AdapterRef("repo", self.repo, Revision(self.commit), self.file)
        return AdapterRef.parse(str(name))  # checks the path

    @property
    def followed(self) -> AdapterRef:
        """The adapter at the head of the revision that it follows."""
        return AdapterRef("repo", self.repo, self.revision, self.file)


class LockedBase(_Strict):
    """The base of a composition, at a commit."""

    repo: Annotated[RepoId, AfterValidator(parse_repo_id)]
    commit: str = Field(pattern=_HEX % 40)
    license: License = None


class Lockfile(_Strict):
    """A composition: its adapters, weights, mode and base.

    Attributes:
        format: Version of the file format.
        hublora: Version of hublora that wrote the file.
        base: The base model, at a commit.
        compose: How the adapters are combined.
        prompt: Template with `{prompt}` for the prompt of a call; None for that alone.
        parts: The adapters, in order.
    """

    format: Literal[1] = 1
    hublora: str = __version__
    base: LockedBase
    compose: CompositionMode = "sum"
    prompt: str | None = Field(default=None, max_length=10_000)
    parts: tuple[LockedPart, ...] = Field(min_length=1, max_length=100, strict=False)

    def render(self) -> str:
        """Return the text of the file."""
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"

    def fill(self, prompt: str) -> str:
        """Return the prompt of a call inside the template."""
        return self.prompt.replace("{prompt}", prompt) if self.prompt else prompt


def read_lockfile(path: Path, name: str) -> Lockfile:
    """Parse a lockfile.

    Args:
        path: The lockfile.
        name: Name of the composition in messages.

    Raises:
        NotFoundError: There is none.
        AdapterError: It is not a valid lockfile.
    """
    if not path.is_file():
        raise NotFoundError(f"{name} has no {path.name}.")
    if path.stat().st_size > _MAX_BYTES:
        raise AdapterError(f"The lockfile of {name} is larger than {_MAX_BYTES:,} bytes.")
    try:
        lock = Lockfile.model_validate_json(path.read_bytes())
        for part in lock.parts:
            assert part.ref.path == part.file, "a path that resolves to another file"
    except (ValidationError, HubloraError, AssertionError) as error:
        reason = re.sub(r"\s+", " ", str(error)).strip()
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise AdapterError(
            f"The lockfile of {name} cannot be read ({reason}).",
            "Write it again with: hublora compose … --push-to-hub …",
        ) from error
    return lock
