"""`zpull fetch` and `zpull locate`: single objects, and where they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import TextIO

from zchunked.cli.commands.pull import resumable, source_of
from zchunked.cli.progress import Progress, human
from zchunked.cli.render import print_json, print_line, progress_of
from zchunked.cli.settings import Settings, traffic_of
from zchunked.errors import FormatError, InterruptedPullError, LocalError, TransferError, UsageError
from zchunked.export.atomic import local_errors
from zchunked.interfaces import Source
from zchunked.oci.digest import EMPTY, Digest, parse_digest, verified
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import ImageReference, parse_image
from zchunked.pull.objects import ObjectFetcher
from zchunked.pull.offline import last_pulled
from zchunked.ranges import ByteRange, total
from zchunked.sources.http.signed_urls import expiry_of
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic
from zchunked.store import Store


def fetch(settings: Settings) -> int:
    """The object to standard output, once it is here and proved; everything else to stderr."""
    reference, digest, output = parse_image(settings.image), _digest(settings.digest), settings.output
    progress = progress_of(output)
    traffic = traffic_of(settings)
    with (
        Store(settings.store) as store,
        closing(source_of(settings, reference, store, traffic)) as source,
    ):
        errand = _errand(settings, reference, source, store, traffic, progress)
        found: Descriptor | None = None
        data = b""
        try:
            with errand:
                if digest is None:
                    data = errand.manifest(settings.platform)
                else:
                    found = errand.fetch(digest, settings.media_type)
        except (TransferError, InterruptedPullError, KeyboardInterrupt) as error:
            progress.close()
            failure = InterruptedPullError("interrupted") if isinstance(error, KeyboardInterrupt) else error
            size = errand.blob.size if errand.blob else 0
            here = total(store.covered(errand.blob.digest)) if errand.blob else 0
            raise resumable(failure, here, size) from error
        finally:
            progress.close()
        if errand.blob is not None and output.tells_more:
            print(f"zpull: fetched {human(traffic.fetched)}, {traffic.requests} requests", file=sys.stderr)
        return _write([data] if found is None else _contents(store, found))


def _contents(store: Store, found: Descriptor) -> Iterable[bytes | memoryview]:
    """Proved when it came, and once more as it goes: a disk may have changed its mind."""
    if found.digest == EMPTY:
        return []
    pieces = store.stream(found.digest, ByteRange(0, found.size))
    return verified(pieces, found.digest, found.size, f"{found.digest} in the store (`zpull verify` drops it)")


def _write(pieces: Iterable[bytes | memoryview]) -> int:
    if sys.stdout is None:
        raise LocalError("standard output is closed, and the object has to go there")
    try:
        with local_errors("cannot write to standard output"):
            _copy(pieces, sys.stdout)
    except LocalError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return error.exit_code  # whoever read has seen enough; nobody is left to tell
        raise
    return 0


def _copy(pieces: Iterable[bytes | memoryview], to: TextIO) -> None:
    is_first, out = True, to.buffer
    for piece in pieces:
        if is_first and to.isatty() and b"\0" in bytes(piece[:1024]):
            raise LocalError("will not write a blob to a terminal; redirect standard output")
        is_first = False
        view = memoryview(piece)
        while view:  # without a buffer a write may take a part
            view = view[out.write(view) :]
    out.flush()


def locate(settings: Settings) -> int:
    """A line for each blob: its digest, where it is, and until when that is good if the URL tells."""
    reference, digest, output = parse_image(settings.image), _digest(settings.digest), settings.output
    progress = progress_of(output)
    traffic = traffic_of(settings)
    with (
        Store(settings.store) as store,
        closing(source_of(settings, reference, store, traffic)) as source,
    ):
        errand = _errand(settings, reference, source, store, traffic, progress)
        try:
            with errand:
                blobs = errand.listed(settings.options.platform) if digest is None else [Descriptor("", digest, 0)]
                found = errand.locate([blob.digest for blob in blobs])
        finally:
            progress.close()
    if output.format == "json":
        print_json([_located(blob, found[blob.digest], is_listed=digest is None) for blob in blobs])
        return 0
    for blob in blobs:
        url = found[blob.digest]
        until = expiry_of(url)
        if output.is_quiet:
            print_line(url)
        else:
            print_line(f"{blob.digest}  {url}" + (f"  until {_when(until)}" if until else ""))
    return 0


def _located(blob: Descriptor, url: str, *, is_listed: bool) -> dict[str, object]:
    until = expiry_of(url)
    listed: dict[str, object] = {"media_type": blob.media_type, "size": blob.size} if is_listed else {}
    return {"digest": blob.digest, **listed, "url": url, "expires": _when(until) if until else None}


def _when(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(text: str | None) -> Digest | None:
    try:
        return None if text is None else parse_digest(text, "DIGEST")
    except FormatError as error:
        raise UsageError(str(error)) from error


def _errand(
    settings: Settings,
    reference: ImageReference,
    source: Source,
    store: Store,
    traffic: Traffic,
    progress: Progress,
) -> ObjectFetcher:
    options = replace(settings.options, offline=isinstance(source, OfflineSource))
    digest = reference.digest
    if options.offline and digest is None and settings.digest is None:
        digest = last_pulled(store, str(reference), options.platform)
    return ObjectFetcher(reference, digest, source, store, traffic=traffic, options=options, show=progress)
