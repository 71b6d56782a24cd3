"""What docs/hub-conformance.md says is what happens."""

from __future__ import annotations

import re

import pytest

from hublora.localhub.store import Store
from tests.localhub import conformance, tables


@pytest.fixture(scope="module")
def results(hub, eve) -> dict[str, str]:
    """Every method of the installed client, tried."""
    people = Store(hub.data_dir).people
    people.add(conformance.ORGANISATION, "org")
    people.set_member(conformance.ORGANISATION, "me", "write")
    return conformance.run(conformance.World(hub.url, hub.token, str(eve.token)))


def test_every_method_that_is_tried_works(results):
    assert {m: r for m, r in results.items() if m in conformance.TRIED and r != "works"} == {}


def test_every_public_method_is_in_the_table(results):
    assert [method for method, result in results.items() if result == "unknown"] == []


def test_at_least_95_percent_of_the_methods_on_repos_work(results):
    tried = [result for method, result in results.items() if method in conformance.TRIED]
    assert tried.count("works") >= 0.95 * len(tried)
    assert len(tried) >= 70


def test_the_docs_list_every_method_that_is_tried_and_every_attack():
    page = (tables.DOCS / "hub-conformance.md").read_text()
    assert [method for method in conformance.TRIED if f"`{method}`" not in page] == []
    attacked = (tables.DOCS / "hub-attacks.md").read_text()
    (day,) = re.findall(r"carried out on (\d{4}-\d\d-\d\d)", attacked)
    assert attacked == tables.attacks_page(day)
