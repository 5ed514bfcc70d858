"""The style sheet as a test: summaries of one line, actors with a name, messages without "we"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "zchunked"
FILES = sorted(PACKAGE.rglob("*.py"))

NAMELESS = re.compile(r"\b(some|no|any)body\b|\bwhoever\b", re.IGNORECASE)
"""A worker, the caller, another process or a host is meant: say which."""
OURS = re.compile(r"\b(we|our|ours)\b", re.IGNORECASE)


def texts(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Line, text and whether it is a docstring, of every string in a file."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, id(node) in docs


def long_summaries(tree: ast.Module) -> list[str]:
    return [
        f"{line}: a summary of several lines"
        for line, string, is_doc in texts(tree)
        if is_doc and "\n" in string.strip().split("\n\n")[0]
    ]


def test_tests_sum_up_in_one_line() -> None:
    tests = PACKAGE.parent / "tests"
    found = {
        path.relative_to(tests).as_posix(): lines
        for path in sorted(tests.rglob("*.py"))
        if (lines := long_summaries(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert not found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_prose_names_its_actors_and_sums_up_in_one_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = long_summaries(ast.parse(text))
    for line, string, is_doc in texts(ast.parse(text)):
        if not is_doc and OURS.search(string) and " " in string:
            found.append(f"{line}: a message says {OURS.search(string)[0]!r}")  # type: ignore[index]
    found += [
        f"{number}: {NAMELESS.search(line)[0]!r}"  # type: ignore[index]
        for number, line in enumerate(text.splitlines(), 1)
        if NAMELESS.search(line)
    ]
    assert not found
