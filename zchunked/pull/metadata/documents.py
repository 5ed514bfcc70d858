"""Fetch the manifest and the config of an image; neither is asked for where the store has it."""

from __future__ import annotations

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.errors import IntegrityError
from zchunked.events import Noted
from zchunked.interfaces import Document
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.pull.metadata.resolve import resolve
from zchunked.pull.session import PullSession
from zchunked.ranges import ByteRange
from zchunked.store.images import ImageDocuments


class DocumentFetcher:
    """Fetches manifest and config of one pull, on a worker of the fetch queue."""

    def __init__(self, session: PullSession) -> None:
        self._session = session
        self._sizes: dict[Digest | None, int] = {}
        self.cost_again = 0
        """Bytes of the manifest that the next pull asks for too."""

    def documents(self) -> ImageDocuments:
        """What the reference names, down to the manifest for the platform; onto the receipt."""
        session = self._session
        options = session.options
        found = resolve(
            session.origin.root,
            options.platform,
            session.store,
            self._fetch,
            options.limits,
            note=lambda text: session.emit(Noted(text)),
        )
        session.receipt.names(found.root, found.manifest_digest)
        return found

    def _fetch(self, digest: Digest | None) -> Document:
        source, accounts = self._session.source, self._session.accounts
        if digest in self._sizes:  # once more: it arrived damaged
            accounts.document(-self._sizes[digest])
            source.report_corruption(digest)
        document = source.manifest(digest)
        self._sizes[digest] = document.cost
        accounts.document(document.cost)
        if digest is None:
            self.cost_again = document.cost_again
        return document

    def config(self, config: Descriptor) -> bytes:
        """Fetch the config. Raises IntegrityError where it arrived damaged twice."""
        session, digest = self._session, config.digest
        data = session.store.get(digest, config.size)
        session.config_bytes_here = config.size if data is not None else 0
        for _ in range(2):
            if data is not None:
                return data
            session.accounts.discard(digest)
            session.source.report_corruption(digest)
            whole = [ByteRange(0, config.size)] if config.size else []
            left = session.store.missing(digest, whole)
            session.downloader.fetch(FetchPlan(config, [(span,) for span in left], whole, whole))
            data = session.store.get(digest, config.size)  # drops it if it is not what was promised
            if data is not None:
                session.store.set_whole(digest, config.size)
        if data is not None:
            return data
        session.accounts.discard(digest)
        raise IntegrityError(
            f"the config does not match its digest {digest}, twice; the registry's copy is damaged"
        )
