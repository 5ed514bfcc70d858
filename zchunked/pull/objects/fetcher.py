"""Fetch single objects of a repository, proved; say where blobs can be downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self, TypeVar

from zchunked.errors import NotFoundError
from zchunked.interfaces import Emit, Listed, Locating, Source
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.oci.platform import Platform
from zchunked.options import Options
from zchunked.pull.objects.object_search import ObjectSearch
from zchunked.pull.objects.single_blob import fetch_some, fetch_whole
from zchunked.pull.origin import Origin
from zchunked.pull.transfer import Transfer
from zchunked.ranges import ByteRange
from zchunked.store import Store

_Answer = TypeVar("_Answer")


class ObjectFetcher:
    """Fetches objects of one repository, on workers that live while the block of `with` lasts.

    Its methods are for the caller's thread, which also gets all events. After one has raised, it is
    good for no other.
    """

    def __init__(self, origin: Origin, store: Store, options: Options, show: Emit) -> None:
        self._origin, self._store, self.traffic = origin, store, origin.traffic
        self._transfer = Transfer(origin, store, options, show)
        self._search = ObjectSearch(self._transfer)
        self.chameleon, self.end_when = self._transfer.chameleon, self._transfer.end_when
        self._workers = ExitStack()
        self.blob: Descriptor | None = None
        """The blob that is being fetched."""
        self.on_wrong: Callable[[Digest], None] = lambda _: None
        """Called when a blob had another digest, before it is fetched anew."""

    def __enter__(self) -> Self:
        self._workers.enter_context(self._transfer.workers(fetch=self._transfer.jobs))
        return self

    def __exit__(self, *exception: object) -> None:
        """Commit what arrived, however the block ends."""
        self._workers.close()
        # A hanging worker still has its writer; what it wrote is safe without us
        if self._transfer.pool.is_gone:
            self._transfer.downloader.close()

    # ── documents ──

    def manifest(self, platform: Platform | None) -> bytes:
        """What the reference names, as served; with a platform, the image's manifest for it."""
        run, search = self._transfer.run, self._search
        if platform is not None:
            return run("fetch", lambda: search.image(platform)).manifest_data
        return run("fetch", lambda: search.document(self._origin.root)).data

    def document(self, digest: Digest) -> bytes:
        """A manifest of whatever kind by its digest."""
        return self._transfer.run("fetch", lambda: self._search.document(digest)).data

    def listing(self, path: str) -> bytes | None:
        """A list of the repository, as `Listed.listing`; None where the source has none."""
        source = self._origin.source
        if not isinstance(source, Listed):
            return None
        try:
            return self.ask(lambda _: source.listing(path)).data
        except NotFoundError:
            return None

    def ask(self, question: Callable[[Source], _Answer]) -> _Answer:
        """What the source answers; failures are forgiven as those of a read are."""
        source, run = self._origin.source, self._transfer.chameleon.run

        def work() -> _Answer | NotFoundError:
            try:
                return run(lambda: question(source))
            except NotFoundError as error:
                return error  # an answer too: raised by a worker, it would end all of them

        found = self._transfer.run("fetch", work)
        if isinstance(found, NotFoundError):
            raise found
        return found

    # ── blobs ──

    def fetch(self, digest: Digest, media_type: str | None = None) -> Descriptor:
        """Fetch a document or blob of the repository, proved. `media_type` hints at which it is.

        Raises NotFoundError, IntegrityError when it arrived wrong twice; what arrived stays.
        """
        found = self._transfer.run("fetch", lambda: self._search.find(digest, media_type))
        if not self._store.is_whole(digest):
            self.blob = found
            fetch_whole(self._transfer, found, self.on_wrong)
        return found

    def fetch_spans(self, blob: Descriptor, spans: Sequence[ByteRange]) -> None:
        """Fetch some bytes of a blob; nothing proves them. Raises as the source does."""
        fetch_some(self._transfer, blob, spans)

    # ── places ──

    def listed(self, platform: Platform) -> list[Descriptor]:
        """Config and layers of the image, each blob once."""
        manifest = self._transfer.run("fetch", lambda: self._search.image(platform)).manifest
        return list({blob.digest: blob for blob in (manifest.config, *manifest.layers)}.values())

    def locate(self, blobs: Sequence[Digest]) -> dict[Digest, str]:
        """Where each blob can be downloaded: a URL, or a file's path. Fetches none."""
        origin, source = self._origin, self._origin.source
        places = {blob: place for blob in blobs if (place := origin.path_of(blob)) is not None}
        if len(places) == len(blobs):
            return places
        if not isinstance(source, Locating):
            raise NotFoundError(
                f"{origin.reference.name}: its source cannot say where its blobs are"
            )
        found: dict[Digest, str] = {}

        def look(blob: Digest) -> None:
            found[blob] = self._transfer.chameleon.run(lambda: source.locate(blob))

        for blob in blobs:
            self._transfer.pool.submit("fetch", lambda blob=blob: look(blob))  # type: ignore[misc]
        self._transfer.wait()
        return found
