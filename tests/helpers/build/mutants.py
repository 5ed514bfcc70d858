"""Damage for property tests: bytes, and JSON in which one value is no longer what it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

TOKENS = [
    *(
        b'"',
        b":",
        b",",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\\",
        b"\n",
        b"\0",
        b"\xff",
        b"\xc0\x80",
        b"\\ud800",
        b"\\u0022",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"-1",
        b"0",
        b"1.5",
        b"1e999",
        b"9" * 30,
        b"[" * 3000,
        b'"a":1,',
        b'"version":1,',
    ),
]
ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**63, 10**30, 1.5, [], {}, [None], {"a": None}),
    *("", "\0", "/", "../x", "\ud800", "\ufffd", "x" * 70_000),
    *("sha256:" + "0" * 64, "sha256:" + "g" * 64, "sha512:" + "0" * 128),
]  # fmt: skip


def brief(error: Exception) -> None:
    """A refusal stays readable, whatever a peer wrote."""
    assert len(str(error)) < 500
    assert "\n" not in str(error)


@st.composite
def mutants(draw: st.DrawFn, good: bytes) -> bytes:
    """`good` after one to four cuts, insertions, repetitions or overwritten bytes."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        there = draw(st.sampled_from(["cut", "token", "bytes", "repeat", "end"]))
        if there == "end":
            del data[start:]
        elif there == "token":
            data[start:end] = draw(st.sampled_from(TOKENS))
        elif there == "bytes":
            data[start:end] = draw(st.binary(max_size=8))
        elif there == "repeat":
            data[start:start] = data[start:end]
        else:
            del data[start:end]
    return bytes(data)


@st.composite
def json_mutants(draw: st.DrawFn, good: Any) -> Any:
    """A deep copy of `good` in which some values are odd, missing, repeated or exchanged."""
    root = [copy.deepcopy(good)]
    for _ in range(draw(st.integers(1, 2))):
        places = list(_places(root))
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        there = draw(st.sampled_from(["odd", "missing", "repeated", "other", "near"]))
        if there == "missing" and holder is not root:
            del holder[key]
        elif there == "repeated" and isinstance(holder, list) and holder is not root:
            holder.insert(key, copy.deepcopy(holder[key]))
        elif there == "other":
            from_holder, from_key = places[draw(st.integers(0, len(places) - 1))]
            holder[key] = copy.deepcopy(from_holder[from_key])
        elif there == "near" and type(holder[key]) is int:
            holder[key] += draw(st.integers(-3, 3))
        else:
            holder[key] = draw(st.sampled_from(ODD_VALUES))
    return root[0] if root else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (list or object, index or key) below `value`."""
    if isinstance(value, list | dict):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            yield value, key
            yield from _places(value[key])
