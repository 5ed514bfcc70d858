"""Single objects of a repository: a manifest or a blob, into the store and proved; and where blobs can be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self, TypeVar

from zchunked.download.coalesce import Link, missing, runs_for
from zchunked.download.downloader import Downloader
from zchunked.download.orders import Order
from zchunked.download.session import Session
from zchunked.errors import FormatError, IntegrityError, LimitError, NotFoundError
from zchunked.events import Noted, Planned
from zchunked.interfaces import Document, Emit, Listed, Locating
from zchunked.layers.proof import is_intact
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import ACCEPTED, Descriptor, Index, parse_document
from zchunked.oci.platform import Platform
from zchunked.oci.reference import LayoutReference
from zchunked.options import Options
from zchunked.pull.offline import refuse_lacking
from zchunked.pull.origin import Origin
from zchunked.pull.request_shape import gap_policy
from zchunked.pull.resolve import resolve
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Accounts
from zchunked.sources.blob_urls import place_in_layout
from zchunked.store import Store
from zchunked.store.images import ImageDocuments

_MOST_DOCUMENTS = 100  # that are read to learn how long a blob is
_ANY = "application/octet-stream"
_Result = TypeVar("_Result")


class ObjectFetcher:
    """Brings objects of one repository, through a crew that works while the block of `with` lasts.

    Its methods are for the caller's thread, which also gets all events. After one has raised, it is good for no other.
    """

    def __init__(
        self,
        origin: Origin,
        store: Store,
        options: Options,
        show: Emit,
    ) -> None:
        traffic = origin.traffic
        self._reference, self._digest, self._plain_source = origin.reference, origin.root, origin.source
        self._store, self._options, self._traffic, self._show = store, options, traffic, show
        session = self._session = Session(
            traffic, jobs=options.jobs, patience=options.patience, bounds=options.bounds, show=show
        )
        self._chameleon = session.chameleon
        self._source = session.retrying(origin.source)
        self._fetcher = Downloader(
            self._source,
            store,
            accounts=Accounts(),
            emit=session.emit,
            stop=session.stop,
            can_drain=lambda: traffic.can_drain,
        )
        session.on_tick = self._fetcher.commit_early
        self._workers = ExitStack()
        self.blob: Descriptor | None = None
        """The blob that is being brought."""
        self.on_wrong: Callable[[Digest], None] = lambda _: None
        """Called when a blob has come with another digest, before it comes anew."""

    def __enter__(self) -> Self:
        self._workers.enter_context(self._session.workers(fetch=self._session.jobs))
        return self

    def __exit__(self, *exception: object) -> None:
        """What came is committed, however the block ends."""
        self._workers.close()
        if self._session.pool.is_gone:  # else a hanging worker still has its writer; what it wrote is safe without us
            self._fetcher.close()

    def _run(self, work: Callable[[], _Result]) -> _Result:
        return self._session.run("fetch", work)

    # ── documents ──

    def manifest(self, platform: Platform | None) -> bytes:
        """What the reference names, as it was served; with a platform, the manifest of the image for it."""
        if platform is not None:
            return self._resolve(platform).manifest_data
        return self._run(lambda: self._document(self._digest).data)

    def document(self, digest: Digest) -> bytes:
        """A manifest of whatever kind by its digest."""
        return self._run(lambda: self._document(digest).data)

    def listing(self, path: str) -> bytes | None:
        """What a list of the repository says, as `Listed.listing`; None where the source has none."""
        source = self._plain_source
        return self._run(lambda: self._listing(source, path)) if isinstance(source, Listed) else None

    def _listing(self, source: Listed, path: str) -> bytes | None:
        try:
            return self._chameleon.run(lambda: source.listing(path)).data
        except NotFoundError:
            return None

    def _resolve(self, platform: Platform) -> ImageDocuments:
        limits = self._options.limits
        return self._run(lambda: resolve(self._digest, platform, self._store, self._source.manifest, limits))

    def _document(self, digest: Digest | None) -> Document:
        """From the store if it is there. Not parsed: what it is does not matter, as long as it is what was promised."""
        if digest is not None and (here := self._store.document(digest)) is not None:
            return Document(here, "")
        answer = self._source.manifest(digest)
        if digest not in (None, digest_of(answer.data)):
            answer = self._source.manifest(digest)
            if (got := digest_of(answer.data)) != digest:
                raise IntegrityError(f"{self._reference.name}: want manifest {digest}, got {got} twice")
        self._store.put(answer.data)
        return answer

    # ── blobs ──

    def fetch(self, digest: Digest, media_type: str | None = None) -> Descriptor:
        """A document or blob of the repository, whole in the store and proved. `media_type` hints at which it is.

        Raises NotFoundError, IntegrityError when it came wrong twice; what arrived stays for the next time.
        """
        found = self._run(lambda: self._find(digest, media_type))
        if not self._store.is_whole(digest):
            self._bring(found)
        return found

    def _find(self, digest: Digest, media_type: str | None) -> Descriptor:
        """Documents are in the store afterwards; of blobs the size is known."""
        if self._store.is_whole(digest):
            return Descriptor(_ANY, digest, total(self._store.covered(digest)))
        if media_type in ACCEPTED:
            return self._as_document(digest)
        found = self._search(digest, self._roots_here(), is_asking=False)
        source = self._plain_source
        if found is None and isinstance(source, Locating):
            try:
                size = self._chameleon.run(lambda: source.size_of(digest))
            except NotFoundError:
                return self._as_document(digest)
            found = None if size is None else Descriptor(_ANY, digest, size)
        if found is None:
            root = self._document(self._digest)
            found = self._search(digest, [digest_of(root.data)], is_asking=True)
        if found is None:
            raise NotFoundError(f"{self._reference.name}: nothing lists a blob {digest}, so its size is not known")
        if found.media_type in ACCEPTED:
            return self._as_document(digest)
        if found.size > self._options.limits.layer_bytes:
            raise LimitError(f"blob {digest} has {found.size} bytes, the limit is {self._options.limits.layer_bytes}")
        return found

    def _as_document(self, digest: Digest) -> Descriptor:
        try:
            document = self._document(digest)
        except NotFoundError as error:
            raise NotFoundError(f"{self._reference.name} has neither a blob nor a manifest {digest}") from error
        return Descriptor(document.media_type or _ANY, digest, len(document.data))

    def _roots_here(self) -> list[Digest]:
        name = self._reference.name
        names = (name + ":", name + "@")
        roots = [image.root for image in self._store.images() if image.name == name or image.name.startswith(names)]
        return roots + ([self._digest] if self._digest else [])

    def _search(self, digest: Digest, roots: Sequence[Digest], *, is_asking: bool) -> Descriptor | None:
        """The descriptor by which a document lists the digest, among these and what they list themselves."""
        todo, seen = list(roots), set(roots)
        for _ in range(_MOST_DOCUMENTS):
            if not todo:
                break
            one = todo.pop(0)
            data = self._document(one).data if is_asking else self._store.document(one)
            try:
                document = parse_document(data or b"", limits=self._options.limits)
            except FormatError:
                continue
            if isinstance(document, Index):
                listed = [instance.descriptor for instance in document.instances]
                todo += [below.digest for below in listed if below.digest not in seen]
                seen.update(todo)
            else:
                listed = [document.config, *document.layers]
            for descriptor in listed:
                if descriptor.digest == digest:
                    return descriptor
        return None

    def _bring(self, blob: Descriptor) -> None:
        self.blob = blob
        whole = [ByteRange(0, blob.size)] if blob.size else []
        for _ in range(2):
            left = missing(whole, self._store.covered(blob.digest))
            if self._options.offline:
                refuse_lacking(str(self._reference), [(blob, total(left))])
            link = Link(self._traffic.round_trip, self._options.link_rate(self._traffic.rate))
            policy = gap_policy(self._options.frugality, link, self._options.jobs)
            order = Order(blob, runs_for(left, policy=policy, jobs=self._options.jobs), whole)
            self._show(Planned(blob.size, blob.size - total(left), total(left)))
            self._fetcher.order(self._session.pool, order)
            self._session.wait()
            self._fetcher.close()
            if is_intact(self._store, blob.digest, blob.size):
                self._store.set_whole(blob.digest, blob.size)
                return
            self._store.distrust(blob.digest, [ByteRange(0, max(blob.size, 1))])
            self.on_wrong(blob.digest)
            self._show(Noted(f"blob {blob.digest} is not what its digest says: dropped"))
        raise IntegrityError(f"blob {blob.digest}: its {blob.size} bytes came twice and have another digest")

    # ── places ──

    def listed(self, platform: Platform) -> list[Descriptor]:
        """Config and layers of the image, each blob once."""
        manifest = self._resolve(platform).manifest
        return list({blob.digest: blob for blob in (manifest.config, *manifest.layers)}.values())

    def locate(self, blobs: Sequence[Digest]) -> dict[Digest, str]:
        """Where each blob can be had without us: a URL, or the path of its file for a directory. Downloads none."""
        reference, source = self._reference, self._plain_source
        if isinstance(reference, LayoutReference):
            return {blob: place_in_layout(reference, blob) for blob in blobs}
        if not isinstance(source, Locating):
            raise NotFoundError(f"{reference.name}: nobody was asked where its blobs are")
        found: dict[Digest, str] = {}

        def look(blob: Digest) -> None:
            found[blob] = self._chameleon.run(lambda: source.locate(blob))

        for blob in blobs:
            self._session.pool.submit("fetch", lambda blob=blob: look(blob))  # type: ignore[misc]
        self._session.wait()
        return found
