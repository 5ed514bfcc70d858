"""Fetch one object of a repository, proved; locate blobs without downloading any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from zchunked.errors import FormatError, InterruptedPullError, TransferError, UsageError
from zchunked.oci.digest import EMPTY, Digest, digest_of, parse_digest, verified
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.operations.pulling import resumable
from zchunked.pull.objects.fetcher import ObjectFetcher
from zchunked.pull.offline import last_pulled
from zchunked.ranges import ByteRange, total
from zchunked.results import FetchedObject, LocatedBlob
from zchunked.sources.http.locations.signed_urls import expiry_of


def fetch(
    context: Context,
    reference: ImageReference,
    digest: Digest | None,
    platform: Platform | None,
    media_type: str | None,
) -> FetchedObject:
    """A manifest as it was served, or an object by its digest: in the store, proved."""
    with _fetcher(context, reference, digest) as fetcher:
        if digest is None:
            data = fetcher.manifest(platform)
            return FetchedObject(digest_of(data), len(data), lambda: [data])
        found = fetcher.fetch(digest, media_type)
        traffic = fetcher.traffic
        return FetchedObject(
            found.digest,
            found.size,
            lambda: _pieces(context, found.digest, found.size),
            traffic.requests,
            traffic.fetched if fetcher.blob is not None else None,
        )


def locate(
    context: Context, reference: ImageReference, digest: Digest | None, platform: Platform | None
) -> list[LocatedBlob]:
    """Where the image's config and layers can be downloaded, or one blob."""
    with _fetcher(context, reference, digest) as fetcher:
        if digest is not None:
            url = fetcher.locate([digest])[digest]
            return [LocatedBlob(digest, url, expiry_of(url), None, None)]
        blobs = fetcher.listed(platform or context.options.platform)
        urls = fetcher.locate([blob.digest for blob in blobs])
        places = [(blob, urls[blob.digest]) for blob in blobs]
        return [
            LocatedBlob(blob.digest, url, expiry_of(url), blob.media_type, blob.size)
            for blob, url in places
        ]


def object_digest(text: str | None) -> Digest | None:
    """Raises UsageError."""
    try:
        return None if text is None else parse_digest(text, "DIGEST")
    except FormatError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _fetcher(
    context: Context, reference: ImageReference, digest: Digest | None
) -> Iterator[ObjectFetcher]:
    """Errors that leave say how to resume, where that helps."""
    with closing(context.open(reference)) as opened:
        options = replace(context.options, offline=opened.is_offline)
        root = opened.root
        if options.offline and root is None and digest is None:
            root = last_pulled(context.store, opened.name, options.platform)
        fetcher = ObjectFetcher(replace(opened, digest=root), context.store, options, context.show)
        try:
            with fetcher:
                yield fetcher
        except (TransferError, InterruptedPullError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt):
                failure: TransferError | InterruptedPullError = InterruptedPullError("interrupted")
            else:
                failure = error
            blob = fetcher.blob
            here = total(context.store.covered(blob.digest)) if blob else 0
            raise resumable(failure, here, blob.size if blob else 0) from error


def _pieces(context: Context, digest: Digest, size: int) -> Iterable[bytes | memoryview]:
    """Proved when it arrived, and once more as it goes: a disk may have changed its mind."""
    if digest == EMPTY:
        return []
    pieces = context.store.stream(digest, ByteRange(0, size))
    return verified(pieces, digest, size, f"{digest} in the store (`zpull verify` drops it)")
