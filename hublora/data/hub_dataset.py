"""A dataset on the Hub, read through the `datasets` library at one commit.

Images are decoded one by one when they are needed, so that a damaged one does not end the run.
Code in the dataset's repo is never run.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.columns import Columns, choose_columns
from hublora.data.config import DataConfig
from hublora.data.dataset_files import check_named_files, check_sizes, download_file
from hublora.data.examples import Example, Listing
from hublora.data.folder_files import ENDINGS
from hublora.data.hub_pairs import has_pairs, list_pairs
from hublora.data.table_rows import list_rows
from hublora.errors import DataError, HubError, HubloraError
from hublora.quoting import one_line

if TYPE_CHECKING:
    from hublora.hub.resolve import RepoSnapshot


_VALUES = 100  # rows that are read for an example of a column's values


def list_dataset(config: DataConfig) -> Listing:
    """Return the rows of a Hub dataset at the current commit of its revision.

    Raises:
        DataError: The configuration, split or column does not exist, or there are no images.
        NotFoundError: The dataset or revision does not exist.
        AccessError: The token may not read the dataset.
        HubError: The Hub cannot be reached, or offline mode is on and the commit not in the cache.
    """
    from hublora.hub.resolve import inspect_repo
    from hublora.refs import parse_repo_id, parse_revision

    assert config.dataset is not None
    snapshot = inspect_repo(
        parse_repo_id(config.dataset),
        "dataset",
        parse_revision(config.revision) if config.revision else None,
    )
    if has_pairs(snapshot):
        return replace(list_pairs(config, snapshot), license=_license_of(snapshot.card))
    table = _load(config, snapshot)
    columns = choose_columns(
        config, table.features, lambda name: table.select_columns([name])[:_VALUES][name]
    )
    return listing_of(config, snapshot, columns, list_rows(config, table, columns))


def listing_of(
    config: DataConfig,
    snapshot: RepoSnapshot,
    columns: Columns,
    examples: Sequence[Example],
    notes: Sequence[str] = (),
) -> Listing:
    """Return the listing of a dataset whose rows were downloaded or streamed."""
    assert config.dataset is not None
    return Listing(
        id=config.dataset,
        revision=snapshot.commit,
        license=_license_of(snapshot.card),
        image_column=columns.image,
        caption_column=columns.caption,
        digest=_digest_of(config, snapshot.commit, columns),
        mask_digest=columns.mask or "",
        reference_digest=",".join(columns.references),
        references_from=_columns_named(columns.references),
        examples=examples,
        notes=notes,
        captions_from=None if columns.caption is None else f"column {columns.caption!r}",
    )


def _columns_named(columns: Sequence[str]) -> str | None:
    if not columns:
        return None
    return f"column{'' if len(columns) == 1 else 's'} {', '.join(map(repr, columns))}"


def _load(config: DataConfig, snapshot: RepoSnapshot) -> Any:
    """Return the `datasets.Dataset` of the split."""
    from hublora.hub.client import is_offline

    with translated_errors(config, snapshot.commit):
        if is_offline():
            builder = _find_prepared(config, snapshot.commit)
        else:
            builder = _prepare(config, snapshot)
        return builder.as_dataset(split=config.split)


@contextmanager
def translated_errors(config: DataConfig, commit: str) -> Iterator[None]:
    """Translate exceptions of `datasets` and the Hub into hublora's; their bars stay away.

    Raises:
        HubloraError: In place of any of them.
    """
    from datasets.exceptions import DatasetGenerationError

    from hublora.hub.client import translated

    try:
        with translated(f"dataset {config.dataset}", commit):
            try:
                with _without_bars():
                    yield
            except DatasetGenerationError as error:
                raise (error.__cause__ or error) from error
    except HubloraError:
        raise
    except Exception as error:  # exceptions of datasets have no common base class
        raise _explain(error, config) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Disable the progress bars of `datasets` and huggingface_hub, then restore both switches."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    from hublora.hub.client import without_bars

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with without_bars():
            yield
    finally:
        if not were_disabled:
            enable_progress_bars()


def _prepare(config: DataConfig, snapshot: RepoSnapshot) -> Any:
    """Return a builder after downloading the commit into the cache of `datasets`."""
    builder = builder_of(config, snapshot)
    if not Path(builder.cache_dir).is_dir():
        check_sizes(snapshot.repo_id, _download_files(builder, snapshot))
    builder.download_and_prepare()
    return builder


def _download_files(builder: Any, snapshot: RepoSnapshot) -> Iterator[Path]:
    """Yield a builder's files, but images, each when it is in the cache that `datasets` uses."""
    for name in named_files(builder, snapshot):
        if not name.lower().endswith(ENDINGS):
            yield download_file(snapshot, name)


def named_files(builder: Any, snapshot: RepoSnapshot) -> Iterator[str]:
    """Yield the paths in the repo of the files that a builder reads.

    Raises:
        DataError: One is not in the repo at the commit.
    """
    root = f"hf://datasets/{snapshot.repo_id}@{snapshot.commit}/"
    for files in (builder.config.data_files or {}).values():
        for file in files:
            if not file.startswith(root):
                raise DataError(
                    f"The dataset {snapshot.repo_id} has a file that is not in it: {file[:200]}."
                )
            yield file.removeprefix(root)


def builder_of(config: DataConfig, snapshot: RepoSnapshot) -> Any:
    """Return the `datasets` builder of a commit; only the list of files is read.

    Raises:
        DataError: The dataset's metadata names files outside of it.
    """
    import datasets

    assert config.dataset is not None
    check_named_files(snapshot)
    builder = datasets.load_dataset_builder(
        _unambiguous(config.dataset), config.config_name, revision=snapshot.commit
    )
    if builder.hash != snapshot.commit:  # datasets took another commit out of its cache instead
        raise HubError(f"The dataset {config.dataset} could not be downloaded.")
    return builder


def _unambiguous(repo_id: str) -> str:
    """Return a name that `datasets` looks up on the Hub even if a local folder has it too."""
    return f"hf://datasets/{repo_id}" if Path(repo_id).is_dir() else repo_id


def _find_prepared(config: DataConfig, commit: str) -> Any:
    """Return a builder of the files that `_prepare` downloaded at this commit before."""
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    assert config.dataset is not None
    root = Path(datasets.config.HF_DATASETS_CACHE)
    owner, name = config.dataset.split("/")
    folder = root / f"{owner}___{datasets.naming.camelcase_to_snakecase(name)}"
    prepared = sorted(folder.glob(f"{config.config_name or '*'}/*/{commit}"))
    if not prepared:
        raise HubError(
            f"The dataset {config.dataset} at {commit[:8]} is not in the local cache and "
            "HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE once to download it.",
        )
    configs = [path.parent.parent.name for path in prepared]
    if len(configs) > 1 and "default" not in configs:
        raise _choose("configuration", None, configs, config)
    chosen = configs.index("default") if len(configs) > 1 else 0
    return Cache(
        dataset_name=name,
        repo_id=config.dataset,
        config_name=configs[chosen],
        version=prepared[chosen].parent.name,
        hash=commit,
    )


# Messages of `datasets` for a dataset without images.
_EMPTY = re.compile(
    r"doesn't contain any data|No \(supported\) data files|Couldn't find any data file"
    r"|BatchSize must be greater than 0|corresponds to no data"
)


def _explain(error: Exception, config: DataConfig) -> HubloraError:
    """Return hublora's error for an exception of `datasets`."""
    where, said = f"The dataset {config.dataset}", str(error).strip()
    listed = re.search(
        r"(?:Available(?: splits)?|available configs|Should be one of):? *\[(.*?)\]", said
    )
    names = re.findall(r"'([^']*)'", listed[1]) if listed else []
    if re.match(r"BuilderConfig .* not found|Config name is missing", said):
        return _choose("configuration", config.config_name, names, config)
    if said.startswith(("Unknown split", "Bad split")):
        return _choose("split", config.split, names, config)
    if _EMPTY.search(said):
        return DataError(f"{where} has no images.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"{where} does not fit on this disk.", "Make room, or point HF_HOME to another disk."
        )
    first = (said.splitlines() or [""])[0]
    return DataError(f"{where} cannot be read: {type(error).__name__}: {first}")


def _choose(
    kind: str, wanted: str | None, names: Sequence[str], config: DataConfig
) -> HubloraError:
    flag = {"configuration": "--dataset-config", "split": "--split"}[kind]
    listed = ", ".join(repr(name) for name in names) or "none"
    problem = f"has no {kind} {wanted!r}" if wanted else f"has several {kind}s"
    return DataError(
        f"The dataset {config.dataset} {problem}; choose from {listed}.",
        f"Name one with {flag}" + (f" {names[0]}." if names else "."),
    )


def _digest_of(config: DataConfig, commit: str, columns: Columns) -> str:
    """Return the identity of a dataset's images: repo, commit, configuration, split, column."""
    part = (config.config_name, config.split, columns.image)
    return "/".join((str(config.dataset), commit, *map(str, part)))


def _license_of(card: Any) -> str | None:
    license = card.get("license")
    if isinstance(license, list):
        license = ", ".join(map(str, license))
    return one_line(str(license)) or None if license else None
