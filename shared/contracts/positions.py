"""Where things stand in a declaration: the line of each key of a TOML or JSON text.

The standard parsers give values without places. These scanners walk texts that the parsers have accepted and
note lines only, so they may take the syntax for granted.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.errors import Problem

Path = tuple[str | int, ...]

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_TOML_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_DOTTED})[ \t]*\]")
_TOML_ENTRY = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_TOML_SKIP = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n',
    re.DOTALL,
)
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


@dataclass(frozen=True)
class Located:
    """A file's name and the lines of its keys; makes problems that point at them."""

    file: str
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing above it; 1 for the file itself."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 1

    def problem(self, path: Path, message: str, fix: str) -> Problem:
        """A problem at `path`."""
        return Problem(self.file, self.line(path), message, fix)


def toml_lines(text: str) -> dict[Path, int]:
    """The line of each table and key of a valid TOML text; an array table's entry has its index in the path.

    >>> toml_lines("[a]\\nx = 1\\n[[b.c]]\\ny = [\\n 2]\\n[[b.c]]\\nz = 3")[("b", "c", 1, "z")]
    7
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    at, line = 0, 1
    while at < len(text):
        if header := _TOML_HEADER.match(text, at):
            table = _table_path(_parts(header[2]), header[1] == "[[", counts)
            for end in range(1, len(table) + 1):
                lines.setdefault(table[:end], line)
            at = header.end()
        elif entry := _TOML_ENTRY.match(text, at):
            path = (*table, *_parts(entry[1]))
            for end in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:end], line)
            at = entry.end()
        end = _end_of_statement(text, at)
        line += text.count("\n", at, end)
        at = end
    return lines


def _parts(dotted: str) -> list[str]:
    return [json.loads(key) if key[0] == '"' else key.strip("'") for key in re.findall(_KEY, dotted)]


def _table_path(parts: list[str], is_array: bool, counts: dict[Path, int]) -> Path:
    path: Path = ()
    for i, part in enumerate(parts):
        path = (*path, part)
        if is_array and i == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _end_of_statement(text: str, at: int) -> int:
    """Just behind the newline that ends the value beginning at `at`; brackets and texts may span lines."""
    depth = 0
    for token in _TOML_SKIP.finditer(text, at):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and depth <= 0:
            return token.end()
    return len(text)


def json_lines(text: str) -> dict[Path, int]:
    """The line of each member and item of a valid JSON text.

    >>> json_lines('{"fields": [\\n {"name": "x"}]}')[("fields", 0, "name")]
    2
    """
    lines: dict[Path, int] = {}
    path: list[str | int] = []  # one entry an open bracket: the key or index that is being read
    is_object: list[bool] = []
    expects_key = False
    for mark, line in _json_tokens(text):
        if mark in "{[":
            lines.setdefault(tuple(path), line)
            is_object.append(mark == "{")
            path.append("" if mark == "{" else 0)
            expects_key = mark == "{"
        elif mark in "}]":
            is_object.pop()
            path.pop()
            expects_key = False
        elif mark == ",":
            last = path[-1]
            path[-1] = last + 1 if isinstance(last, int) else ""
            expects_key = is_object[-1]
        elif mark == ":":
            expects_key = False
        elif expects_key:
            path[-1] = json.loads(mark, strict=False)
            lines.setdefault(tuple(path), line)
        else:
            lines.setdefault(tuple(path), line)
    return lines


def _json_tokens(text: str) -> Iterator[tuple[str, int]]:
    line, last = 1, 0
    for token in _JSON_TOKEN.finditer(text):
        line += text.count("\n", last, token.start())
        last = token.start()
        yield token[0], line


def parse_json(text: str, file: str) -> tuple[Any, Located, list[Problem]]:
    """The value, the places and the mistakes of a JSON text; the value is None where it is not JSON."""
    problems: list[Problem] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in {name for name in names if names.count(name) > 1}:
            line = next((n for p, n in json_lines(text).items() if p and p[-1] == name), 1)
            problems.append(Problem(file, line, f'"{name}" is given twice in one object', "keep one of them"))
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=members)
    except json.JSONDecodeError as error:
        fix = f"correct the JSON at column {error.colno}"
        return None, Located(file, {}), [Problem(file, error.lineno, f"not JSON: {error.msg}", fix)]
    except RecursionError:
        return None, Located(file, {}), [Problem(file, 1, "nested too deeply", "write a flatter schema")]
    return value, Located(file, json_lines(text)), problems
