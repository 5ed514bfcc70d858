"""The corpus is what it claims to be.

The same every time, and changed as an update changes an image.
"""

import tarfile
from io import BytesIO

from tests.peers import corpus

BEFORE = corpus.grow(7, 2_000)
AFTER = corpus.change(BEFORE, 8)


def test_the_same_seed_gives_the_same_files() -> None:
    assert corpus.grow(7, 2_000) == BEFORE
    assert corpus.change(BEFORE, 8) == AFTER
    assert corpus.grow(8, 2_000) != BEFORE


def test_an_update_changes_little() -> None:
    contents = {*BEFORE.values()}
    renamed = [name for name in AFTER if name not in BEFORE and AFTER[name] in contents]
    fresh = [name for name in AFTER if AFTER[name] not in contents]
    edited = [name for name in fresh if name in BEFORE]
    assert len(renamed) >= 5
    assert 0.04 < len(edited) / len(BEFORE) < 0.07
    assert any(len(AFTER[name]) > 300_000 for name in edited)
    assert any("/new/" in name for name in fresh)
    assert any(
        content not in {*AFTER.values()} for name, content in BEFORE.items() if name not in AFTER
    )


def test_a_tar_ends_in_two_zero_blocks() -> None:
    data = corpus.tar(BEFORE)
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        members = archive.getmembers()
        assert {member.name: member.size for member in members if member.isreg()} == {
            k: len(v) for k, v in BEFORE.items()
        }
        last = members[-1]
    assert len(data) == last.offset_data + last.size + -last.size % 512 + 1024
