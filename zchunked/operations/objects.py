"""Fetch one object of a repository, proved, and locate blobs without downloading any."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from zchunked.errors import FormatError, InterruptedPullError, TransferError, UsageError
from zchunked.oci.digest import EMPTY, Digest, digest_of, parse_digest, verified
from zchunked.oci.documents import Descriptor
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.operations.pulling import resumable
from zchunked.pull.objects import ObjectFetcher
from zchunked.pull.offline import last_pulled
from zchunked.ranges import ByteRange, total
from zchunked.results import FetchedObject, LocatedBlob
from zchunked.sources.http.signed_urls import expiry_of
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic
from zchunked.store import Store

_Result = TypeVar("_Result")


def fetch(
    context: Context,
    reference: ImageReference,
    digest: Digest | None,
    platform: Platform | None,
    media_type: str | None,
) -> FetchedObject:
    """A manifest as it was served, or an object by its digest: in the store, proved."""

    def work(fetcher: ObjectFetcher) -> FetchedObject:
        if digest is None:
            data = fetcher.manifest(platform)
            return FetchedObject(digest_of(data), len(data), lambda: [data])
        found = fetcher.fetch(digest, media_type)
        fetched = traffic.fetched if fetcher.blob is not None else None
        return FetchedObject(found.digest, found.size, lambda: _pieces(context.store, found), traffic.requests, fetched)

    traffic = context.traffic()
    return _with_fetcher(context, reference, digest, traffic, work)


def locate(
    context: Context, reference: ImageReference, digest: Digest | None, platform: Platform | None
) -> list[LocatedBlob]:
    """Where the image's config and layers can be had, or one blob."""

    def work(fetcher: ObjectFetcher) -> list[LocatedBlob]:
        blobs = [Descriptor("", digest, 0)] if digest is not None else []
        if digest is None:
            blobs = fetcher.listed(platform or context.options.platform)
        urls = fetcher.locate([blob.digest for blob in blobs])
        return [
            LocatedBlob(
                blob.digest,
                urls[blob.digest],
                expiry_of(urls[blob.digest]),
                blob.media_type if digest is None else None,
                blob.size if digest is None else None,
            )
            for blob in blobs
        ]  # fmt: skip

    return _with_fetcher(context, reference, digest, context.traffic(), work)


def object_digest(text: str | None) -> Digest | None:
    """Raises UsageError."""
    try:
        return None if text is None else parse_digest(text, "DIGEST")
    except FormatError as error:
        raise UsageError(str(error)) from error


def _with_fetcher(
    context: Context,
    reference: ImageReference,
    digest: Digest | None,
    traffic: Traffic,
    work: Callable[[ObjectFetcher], _Result],
) -> _Result:
    with closing(context.open(reference, traffic)) as opened:
        options = replace(context.options, offline=isinstance(opened.source, OfflineSource))
        root = opened.root
        if options.offline and root is None and digest is None:
            root = last_pulled(context.store, opened.name, options.platform)
        origin = replace(opened, digest=root)
        fetcher = ObjectFetcher(origin, context.store, options, context.show)
        try:
            with fetcher:
                return work(fetcher)
        except (TransferError, InterruptedPullError, KeyboardInterrupt) as error:
            failure = InterruptedPullError("interrupted") if isinstance(error, KeyboardInterrupt) else error
            blob = fetcher.blob
            here = total(context.store.covered(blob.digest)) if blob else 0
            raise resumable(failure, here, blob.size if blob else 0) from error


def _pieces(store: Store, found: Descriptor) -> Iterable[bytes | memoryview]:
    """Proved when it came, and once more as it goes: a disk may have changed its mind."""
    if found.digest == EMPTY:
        return []
    pieces = store.stream(found.digest, ByteRange(0, found.size))
    return verified(pieces, found.digest, found.size, f"{found.digest} in the store (`zpull verify` drops it)")
