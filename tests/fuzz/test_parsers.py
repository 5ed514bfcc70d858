"""Honest input, damaged in any way, and bytes of no kind: a value, or an error of ours."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.parsers import PARSERS, seeds
from zchunked.errors import ZPullError

SEEDS = seeds()
CHANGE = st.tuples(st.integers(0, 1 << 20), st.integers(0, 40), st.binary(max_size=8))


def changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, put in changes:
        where = at % (len(data) + 1)
        data = data[:where] + put + data[where + length :]
    return data


@pytest.mark.parametrize("name", PARSERS)
def test_honest_input_is_understood(name: str) -> None:
    for data in SEEDS[name]:
        # halves of something; a helper that is not here
        if name not in ("estargz", "tarsplit", "credentials"):
            PARSERS[name](data)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_no_bytes_crash_a_parser(name: str, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        seed = data.draw(st.sampled_from(SEEDS[name]))
        text = changed(seed, data.draw(st.lists(CHANGE, min_size=1, max_size=4)))
    else:
        text = data.draw(st.binary(max_size=300))
    with contextlib.suppress(ZPullError):
        PARSERS[name](text)
