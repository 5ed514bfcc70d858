"""Pass many rows to one SQL statement: numbers and digests packed into few parameters."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

AT_ONCE = 2000
"""Parameters of one statement, or rows: more of them gain nothing."""

# Many rows go in and out by one statement and few parameters, however many they are: each step of a
# statement and each row that it gives lets go of the interpreter, and among busy threads comes back
# to it late, up to 5 ms for each.
NUMBERS = f"""
INSERT OR IGNORE INTO numbers
WITH RECURSIVE each(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM each WHERE n + 1 < {AT_ONCE})
SELECT n FROM each
"""
_DIGITS = 20
_THREE = b"%020d" * 3
_Row = TypeVar("_Row")


def batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    left = iter(rows)
    while some := list(islice(left, AT_ONCE)):
        yield some


def packed_rows(rows: Iterable[tuple[int, int, int]]) -> bytes:
    """Each number with all its digits, for `column`."""
    return b"".join([_THREE % row for row in rows])


def column(which: int) -> str:
    """The number that the row `n` has in one of the three columns of `:packed`."""
    return f"CAST(substr(:packed, {1 + which * _DIGITS} + n * {3 * _DIGITS}, {_DIGITS}) AS INTEGER)"


def stored(name: str) -> str | bytes:
    """A name may hold a path, and a path bytes that are no text: then it is stored as bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def unstored(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else os.fsdecode(stored)
