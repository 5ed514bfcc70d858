"""Open what an archive is written to: a file that appears complete, a pipe, a device, stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from zchunked.errors import LocalError
from zchunked.export.destination import Destination
from zchunked.export.files.atomic import local_errors
from zchunked.export.files.targets import opened


@contextmanager
def open_sink(to: Destination) -> Iterator[IO[bytes]]:
    """The sink while the block lasts. LocalError for a terminal, and for what writing raises."""
    with local_errors(f"cannot write {to.path}"), _file(to) as file:
        yield file


@contextmanager
def _file(to: Destination) -> Iterator[IO[bytes]]:
    if not to.is_stdout:
        with opened(to.path) as file:
            if file.isatty():
                raise LocalError(f"will not write an archive to the terminal {to.path}")
            yield file
        return
    if sys.stdout is None:
        raise LocalError("standard output is closed, and the archive has to go there")
    if sys.stdout.isatty():
        raise LocalError("will not write an archive to a terminal; redirect standard output")
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
