"""What `zpull fetch` gives to a terminal."""

from __future__ import annotations

import io

import pytest

from zchunked.cli.commands.objects import _write
from zchunked.errors import LocalError
from zchunked.results import FetchedObject


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def found(*pieces: bytes | memoryview) -> FetchedObject:
    return FetchedObject("sha256:…", sum(map(len, pieces)), lambda: iter(pieces))


@pytest.mark.parametrize(
    "data",
    [b"\x1b[2Jgone", b"\x00\x01", "\x9b2J".encode(), b"\x07", "\u202eelif".encode(), b"\x7f"],
)
def test_nothing_that_moves_a_cursor_reaches_a_terminal(data: bytes) -> None:
    out, file = io.BytesIO(), io.BytesIO()
    terminal, pipe = Terminal(out), io.TextIOWrapper(file)
    with pytest.raises(LocalError, match="redirect"):
        _write(found(b'{"a": 1}\n', data), terminal)
    assert out.getvalue() == b"", "no half of it either"
    assert _write(found(data), pipe) == 0
    assert file.getvalue() == data


def test_a_manifest_is_shown_whole_also_when_it_is_cut_through_a_letter() -> None:
    data, out = '{"a": "schön…"}\n\t'.encode(), io.BytesIO()
    terminal = Terminal(out)
    assert _write(found(data[:10], data[10:14], memoryview(data)[14:]), terminal) == 0
    assert out.getvalue() == data
