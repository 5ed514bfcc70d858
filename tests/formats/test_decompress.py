"""Whole blobs to their tar, however they are cut and of however many members they are."""

from __future__ import annotations

import gzip
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from zchunked.formats.decompress import unpacked

LENGTHS = st.lists(
    st.integers(0, 3000) | st.sampled_from([256 << 10, (256 << 10) + 1, 600_000]), min_size=1, max_size=5
)


@given(LENGTHS, st.lists(st.integers(0, 5000), max_size=4), st.integers(0, 3))
@example([600_000, 1024, 512], [], 0)
@example([256 << 10, 256 << 10, 1], [], 2)
def test_a_gzip_file_of_several_members_is_their_content(lengths: list[int], edges: list[int], zeros: int) -> None:
    """In one piece as well: a member that needs several steps is followed by others in the same piece."""
    members = [bytes((number + 1,)) * length for number, length in enumerate(lengths)]
    data = b"".join(gzip.compress(member, mtime=0) for member in members) + bytes(zeros)
    bounds = sorted({0, len(data), *(edge for edge in edges if edge < len(data))})
    assert b"".join(unpacked([data[start:end] for start, end in pairwise(bounds)])) == b"".join(members)
