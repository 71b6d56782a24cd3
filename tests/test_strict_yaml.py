"""Strangers' YAML: what is read, what is refused, and that nothing else can come of a text."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hublora.strict_yaml import Limits, YamlError, loads, split_front_matter

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
TREES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
@settings(max_examples=300)
def test_what_safe_dump_writes_is_read_back_as_it_was(tree):
    assert loads(yaml.safe_dump(tree)) == tree


@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%@#~<=. \n\t0159exnuly\\\x00\ud800é", max_size=80))
@settings(max_examples=1500)
def test_any_text_is_read_as_plain_values_or_refused_with_a_reason(text):
    try:
        found = loads(text)
    except YamlError:
        return
    json.dumps(found, ensure_ascii=False).encode("utf-8")


@given(st.text(alphabet="0123456789.:-+_exonfaTru~Nyslt", min_size=1, max_size=12))
@settings(max_examples=500)
def test_a_number_is_one_only_where_pyyaml_says_the_same(text):
    try:
        found = loads(text)
    except YamlError:
        return
    if isinstance(found, bool | int | float):
        assert found == yaml.safe_load(text) or math.isnan(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("language: no", {"language": "no"}),
        ("yes: on", {"yes": "on"}),
        ("1: 1:1:1", {"1": "1:1:1"}),
        ("date: 2024-01-01", {"date": "2024-01-01"}),
        ("a: 010\nb: 0x1f\nc: -3\nd: 1.5e+3", {"a": "010", "b": 31, "c": -3, "d": 1500.0}),
        ("a: .inf", {"a": math.inf}),
        ("a:\r\n- b\r\n", {"a": ["b"]}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        (
            "one: &one {a: 1, b: 2}\ntwo:\n  <<: *one\n  b: 3",
            {"one": {"a": 1, "b": 2}, "two": {"a": 1, "b": 3}},
        ),
        ("", None),
        ("# only a comment", None),
    ],
)
def test_it_reads(text, value):
    assert loads(text) == value


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("f: !!bool x", "the tag 'tag:yaml.org,2002:bool' is not taken (line 1)"),
        ("a: 1\ne: !!int ''", "the tag 'tag:yaml.org,2002:int' is not taken (line 2)"),
        ("c: !!timestamp x", "the tag 'tag:yaml.org,2002:timestamp' is not taken (line 1)"),
        ("!!python/object/apply:os.system [id]", "is not taken"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice (line 3)"),
        ("a:\n\t- b", "a tab indents it, and YAML takes spaces alone (line 2)"),
        ("? [a]\n: b", "a key is a list, a mapping or an alias"),
        ("a: &a b\n*a : c", "a key is a list, a mapping or an alias (line 2)"),
        ("a: &a [*a]", "stands for nothing finished"),
        ("a: 1\n---\nb: 2", "a second document begins (line 2)"),
        ("<<: 1", "'<<' merges mappings only"),
        ("a: " + "9" * 100_000, "a number of more than 40 digits"),
        ("[" * 20_000, "nested more than 24 levels deep"),
        ("- " * 20_000, "nested more than 24 levels deep"),
        ("\n".join(f"k{i}: v" for i in range(20_000)), "more than 20000 values"),
        (LAUGHS, "more than 20000 values"),
        (f"a: &a {'x' * 60_000}\nb: [{'*a, ' * 20}]", "more than 1048576 characters"),
        ("x" * (2 << 20), "longer than 1048576 characters"),
        ("a: \x00", "control characters"),
        ("a: \ud800", "surrogates"),
    ],
)
def test_it_refuses(text, reason):
    with pytest.raises(YamlError) as refused:
        loads(text)
    assert reason in str(refused.value)


def test_aliases_cannot_go_deeper_than_what_is_written_out():
    steps = [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 30)]
    with pytest.raises(YamlError, match="levels deep"):
        loads("\n".join(["a0: &a0 []", *steps]))


def test_the_limits_are_the_callers():
    assert loads("[[1]]", Limits(depth=2)) == [[1]]
    with pytest.raises(YamlError, match="more than 1 levels"):
        loads("[[1]]", Limits(depth=1))


@pytest.mark.parametrize(
    ("readme", "front_matter", "body"),
    [
        ("---\na: 1\n---\n# Hi\n", "a: 1", "# Hi\n"),
        ("\ufeff\n---\r\na: 1\r\n---\r\n# Hi\r\n", "a: 1", "# Hi\r\n"),
        ("---\n---\nbody", "", "body"),
        ("---\na: 1\n---", "a: 1", ""),
        ("# Hi\n---\na: 1\n---\n", "", "# Hi\n---\na: 1\n---\n"),
    ],
)
def test_a_card_is_split(readme, front_matter, body):
    assert split_front_matter(readme) == (front_matter, body)
