"""Register a pull in the store's log, and take turns with others that fetch the same."""

from __future__ import annotations

from contextlib import suppress

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.errors import AccessDeniedError, NotFoundError, TransferError
from zchunked.events import Noted
from zchunked.pull.processes.claims import Claims
from zchunked.pull.session import PullSession
from zchunked.ranges import total
from zchunked.store.images import ImageDocuments


class Registration:
    """Registers one pull; for the thread that waits for its workers."""

    def __init__(self, session: PullSession) -> None:
        self._session = session
        self._claims = Claims(session.store, session.stop, link_share=session.traffic.link_share)
        self._number = 0  # of this pull in the log

    def begin(self, documents: ImageDocuments) -> None:
        """Let others know what is lacking and who fetches it. May wait; `tick` may end that."""
        session, store = self._session, self._session.store
        layers = {layer.digest for layer in documents.manifest.layers}
        lacking = [one for one in layers if not (store.is_whole(one) or store.is_proved(one))]
        if not lacking:
            return
        options, origin = session.options, session.origin
        here = sum(total(store.covered(layer)) for layer in layers)
        platform = str(options.platform)
        self._number = store.pulls.begin(origin.name, platform, documents.manifest_digest, here)
        if options.takes_turns and origin.files is None and not options.offline:
            repository = origin.reference.name
            for text in self._claims.acquire(repository, lacking, session.tick, self._number):
                session.show(Noted(text))
            from zchunked.pull.processes.interrupted_pulls import adopt_chunks  # noqa: PLC0415 - loads what reads tables

            adopt_chunks(store, repository, layers, self._fetch_apart, options.limits)

    def _fetch_apart(self, plan: FetchPlan) -> None:
        """Fetch what this pull can do without: a failure is none of its own."""

        def fetch() -> None:
            with suppress(TransferError, NotFoundError, AccessDeniedError):
                self._session.downloader.fetch(plan, may_grow=False)

        self._session.run("fetch", fetch)

    def finish(self) -> None:
        """The image is in the store."""
        session = self._session
        platform = str(session.options.platform)
        session.store.pulls.finish(self._number, session.origin.name, platform)

    def release(self) -> None:
        """Let others go on. May be called twice."""
        self._claims.release()
