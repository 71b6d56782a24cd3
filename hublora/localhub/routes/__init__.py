"""Everything the server answers to: one module per concern, one table of routes each."""

from __future__ import annotations

from . import (
    browse,
    collections,
    commits,
    community,
    discussions,
    files,
    gates,
    git,
    lfs,
    lists,
    pages,
    people,
    refs,
    repos,
)

ROUTES = [
    *people.ROUTES,
    *lists.ROUTES,
    *repos.ROUTES,
    *files.ROUTES,
    *commits.ROUTES,
    *refs.ROUTES,
    *lfs.ROUTES,
    *git.ROUTES,
    *discussions.ROUTES,
    *collections.ROUTES,
    *gates.ROUTES,
    *browse.ROUTES,
    *community.ROUTES,
    *pages.ROUTES,
]
