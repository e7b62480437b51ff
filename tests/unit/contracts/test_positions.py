"""Lines of keys, found without a parser's help."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.positions import Located, Path, json_lines, parse_json, toml_lines

TOML = '''# [not.a.table]
top = 1
"quoted key" = """
[nor.this]
x = 2
"""

[a]
b = [  # [nor.this.one]
  1, "]",
  { c = 3 },
]
d.e = '#'
[[list]]
x = """a"""
[[list]]  # second
x = 1
[list.inner]
y = 2
[[list.deep]]
z = 1
[[list.deep]]
z = """
"""
  indented = 1
[p.q.r]
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("quoted key",), 3),
        (("a",), 8),
        (("a", "b"), 9),
        (("a", "d"), 13),
        (("a", "d", "e"), 13),
        (("list",), 14),
        (("list", 0), 14),
        (("list", 0, "x"), 15),
        (("list", 1), 16),
        (("list", 1, "x"), 17),
        (("list", 1, "inner", "y"), 19),
        (("list", 1, "deep", 0, "z"), 21),
        (("list", 1, "deep", 1, "z"), 23),
        (("list", 1, "deep", 1, "indented"), 25),
        (("p",), 26),
        (("p", "q", "r"), 26),
    ],
)
def test_toml_keys_have_their_lines(path: Path, line: int) -> None:
    tomllib.loads(TOML)
    assert toml_lines(TOML)[path] == line


def test_nothing_inside_texts_counts_as_a_key() -> None:
    names = {part for path in toml_lines(TOML) for part in path}
    words = ["top", "a", "b", "d", "e", "list", "x", "inner", "y", "deep", "z", "indented", "p", "q", "r"]
    assert names == {*words, "quoted key", 0, 1}


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def _paths(value: object, path: Path = ()) -> list[Path]:
    if isinstance(value, dict):
        return [p for key, child in value.items() for p in [(*path, key), *_paths(child, (*path, key))]]
    if isinstance(value, list):
        return [p for i, child in enumerate(value) for p in _paths(child, (*path, i))]
    return []


@given(VALUES)
def test_every_json_member_is_found_on_its_own_line(value: object) -> None:
    text = json.dumps(value, indent=1)
    lines = json_lines(text)
    source = text.split("\n")
    for path in _paths(value):
        assert source[lines[path] - 1].strip().startswith(json.dumps(path[-1]))


def test_a_path_without_line_is_reported_at_what_is_above_it() -> None:
    at = Located("f", {("a",): 3, ("a", "b"): 5})
    assert [at.line(path) for path in (("a", "b", "c"), ("a", "x"), ("z",), ())] == [5, 3, 1, 1]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{\n "a": }', 2, "not JSON"),
        ("", 1, "not JSON"),
        ('{"a": 1,\n "b": 2,\n "b": 3}', 2, '"b" is given twice'),
        ("[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_broken_json_is_told(text: str, line: int, message: str) -> None:
    _, _, problems = parse_json(text, "f")
    assert [(p.line, message in p.message) for p in problems] == [(line, True)]
