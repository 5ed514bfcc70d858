"""Outputs of a program beside the images: files written whole, and who has standard output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from zchunked.export.destination import parse_destination
from zchunked.export.files.atomic import local_errors
from zchunked.export.files.targets import opened

Pieces = Iterable[bytes | memoryview]


def write_file(to: str | os.PathLike[str] | IO[bytes], pieces: Pieces) -> None:
    """Write bytes as exports are written: a regular file is whole, or as it was before.

    A pipe, a device or an open file (`/dev/fd/3`) is written through.

    Args:
        to: Path of a file, or one that is open; of that nothing is closed.
        pieces: What to write, such as `FetchedObject.pieces()`.

    Raises:
        LocalError: It cannot be written: the disk is full, a pipe's reader is gone, …
        ZPullError: What the pieces raise; a regular file stays as it was.

    Example:
        >>> import pathlib, zchunked
        >>> manifest = zchunked.Client("store").fetch("oci:demo:demo-v1")
        >>> zchunked.write_file("manifest.json", manifest.pieces())
        >>> pathlib.Path("manifest.json").read_bytes() == manifest.read()
        True
    """
    if isinstance(to, str | os.PathLike):
        with opened(Path(to)) as file:
            _copy(pieces, file)
    else:
        name = getattr(to, "name", "the file")
        with local_errors(f"cannot write to {'standard output' if name == '<stdout>' else name}"):
            _copy(pieces, to)


def _copy(pieces: Pieces, out: IO[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:  # without a buffer a write may take a part
            view = view[out.write(view) :]
    out.flush()


def writes_to_stdout(to: str | Sequence[str]) -> bool:
    """Whether an image goes to standard output, so that a program's own words go elsewhere.

    Args:
        to: Destinations, as `Client.pull` takes them, or a target of `Client.convert`.

    Raises:
        UsageError: An archive's destination cannot be understood.

    Example:
        >>> import zchunked
        >>> zchunked.writes_to_stdout(["oci:app", "oci-archive:-"])
        True
    """
    return any(
        text.partition(":")[0].endswith("-archive") and parse_destination(text).is_stdout
        for text in ([to] if isinstance(to, str) else to)
    )
