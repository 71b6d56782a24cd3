"""Everything the server answers to: one module per concern, one table of routes each."""

from __future__ import annotations

from . import (
    absent,
    browse,
    collections,
    commits,
    community,
    discussions,
    files,
    forms,
    gates,
    git,
    lfs,
    lists,
    pages,
    people,
    refs,
    repos,
    shelves,
    webhooks,
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
    *forms.ROUTES,
    *shelves.ROUTES,
    *webhooks.ROUTES,
    *absent.ROUTES,
    *pages.ROUTES,
]
ROUTES += absent.bare(ROUTES)
