"""`zpull fetch` and `zpull locate`: fetch single objects, and find their URLs."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import datetime
from typing import TextIO

from zchunked import write_file
from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.progress import human
from zchunked.cli.terminal.render import print_json, print_line, progress_of
from zchunked.errors import LocalError
from zchunked.results import FetchedObject, LocatedBlob

_LAYOUT = str.maketrans("", "", "\n\r\t")


def fetch(settings: Settings) -> int:
    """The object to standard output, once it is here and proved; everything else to stderr."""
    progress = progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        found = client.fetch(
            settings.image,
            settings.digest,
            platform=settings.platform,
            media_type=settings.media_type,
        )
        progress.close()
        if found.fetched_bytes is not None and settings.output.is_talkative:
            print(
                f"zpull: fetched {human(found.fetched_bytes)}, {found.requests} requests",
                file=sys.stderr,
            )
        return _write(found, sys.stdout)


def _write(found: FetchedObject, out: TextIO | None) -> int:
    if out is None:
        raise LocalError("standard output is closed, and the object has to go there")
    if out.isatty() and not all(_is_plain(bytes(piece)) for piece in found.pieces()):
        raise LocalError(
            "will not write binary data or control characters to a terminal; redirect standard "
            "output"
        )
    try:
        write_file(out.buffer, found.pieces())
    except LocalError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return error.exit_code  # the reader has closed the pipe
        raise
    return 0


def _is_plain(data: bytes) -> bool:
    """Whether a terminal only shows it. A letter that was cut does no harm."""
    text = data.decode("utf-8", "replace").translate(_LAYOUT)
    return all(letter.isprintable() or letter == "\ufffd" for letter in set(text))


def locate(settings: Settings) -> int:
    """Print a line for each blob: its digest, where it is, and until when the URL is valid."""
    output, progress = settings.output, progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        blobs = client.locate(settings.image, settings.digest)
    if output.format == "json":
        print_json([_located(blob) for blob in blobs])
        return 0
    for blob in blobs:
        until = f"  until {_when(blob.expires)}" if blob.expires else ""
        print_line(blob.url if output.is_quiet else f"{blob.digest}  {blob.url}{until}")
    return 0


def _located(blob: LocatedBlob) -> dict[str, object]:
    listed: dict[str, object] = {}
    if blob.media_type is not None:
        listed = {"media_type": blob.media_type, "size": blob.size}
    return {
        "digest": blob.digest,
        **listed,
        "url": blob.url,
        "expires": _when(blob.expires) if blob.expires else None,
    }


def _when(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
