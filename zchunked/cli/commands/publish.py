"""`zpull publish IMAGE TARGET`: completes what the store has of the image, then brings it to the target."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path

from zchunked.cli.commands.pull import SILENCE_SECONDS, bearable, pull, pull_of, resumable, source_of, summary
from zchunked.cli.progress import Progress, human
from zchunked.cli.render import print_json, print_line, progress_of, write_digestfile
from zchunked.cli.settings import Output, Settings, traffic_of
from zchunked.errors import InterruptedPullError, NotFoundError, TransferError, UsageError, ZPullError
from zchunked.events import Noted
from zchunked.export import DamagedLayerError
from zchunked.export.destination import parse_target
from zchunked.export.folder import FolderTarget
from zchunked.export.publisher import Publisher, Sent, Target, is_complete
from zchunked.export.shipment import shipment_of
from zchunked.oci.reference import ImageReference, LayoutReference, parse_image
from zchunked.pull.pull import Pull
from zchunked.receipt import Export, Receipt, image_bytes
from zchunked.store import Store
from zchunked.store.images import StoredImage, load


def publish(settings: Settings) -> int:
    """An image in the store is published as it is; one that is not is pulled first, whole."""
    # A published layer is the registry's own blob, so of one that came in parts the rest is fetched.
    options = settings.options
    settings = replace(settings, options=replace(options, frugality=replace(options.frugality, exact=True)))
    if settings.is_plan:
        return pull(settings)
    reference, to = parse_image(settings.image), parse_target(settings.target)
    to = replace(to, tag=to.tag or reference.tag)
    receipt, output = Receipt(str(reference)), settings.output
    progress = progress_of(output)
    failure: ZPullError | None = None
    with Store(settings.store) as store, closing(publish_target(settings, to)) as target, ExitStack() as stack:
        work = SourceImage(settings, reference, store, receipt, progress, stack)
        publishers: list[Publisher] = []

        def bring(image: StoredImage) -> None:
            publishers.append(work.publisher(target))
            publishers[-1].run(shipment_of(store, image), to.tag)

        try:
            image = work.used(bring)
            receipt.exports.append(Export(settings.target, image.documents.manifest_digest))
        except ZPullError as error:
            failure = error
        except KeyboardInterrupt:
            failure = InterruptedPullError("interrupted")
        finally:
            progress.close()
    if isinstance(failure, (TransferError, InterruptedPullError)):
        failure = resumable(failure, work.bytes_here, receipt.bytes.image)
    if failure is None:
        write_digestfile(output.digestfile, receipt)
    _print(output, to, receipt, failure)
    if output.tells_more:
        _tell(receipt, publishers[-1].sent if publishers else Sent(), target.name)
    if failure is not None:
        raise failure
    return 0


class SourceImage:
    """The source's side of a publication or a push: not opened at all for an image that is complete in the store."""

    def __init__(
        self,
        settings: Settings,
        reference: ImageReference,
        store: Store,
        receipt: Receipt,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        """What is opened is closed with `stack`."""
        self._settings, self._reference = settings, reference
        self._store, self._receipt, self._progress, self._stack = store, receipt, progress, stack
        self._work: Pull | None = None

    @property
    def bytes_here(self) -> int:
        return self._work.bytes_here if self._work else self._receipt.bytes.cached

    def publisher(self, target: Target) -> Publisher:
        options, left = self._settings.options, self._settings.options.bounds.deadline
        if left is not None:
            left = max(0.0, left - self._receipt.seconds)
        return Publisher(target, jobs=options.jobs, patience=options.patience, show=self._progress, deadline=left)

    def complete(self) -> StoredImage:
        """The image with all its blobs whole; what the store has is the image, wherever its tag points by now."""
        image = self._stored()
        if image is None or not is_complete(self._store, image):
            try:
                return self._pull(image).run()
            finally:
                self._progress.close()
        self._receipt.platform = str(image.config.platform)
        self._receipt.names(image.documents.root, image.documents.manifest_digest)
        self._receipt.image_id = image.documents.manifest.config.digest
        self._receipt.bytes.image = self._receipt.bytes.cached = image_bytes(image.documents.manifest)
        return image

    def used(self, use: Callable[[StoredImage], None]) -> StoredImage:
        """Complete the image and use it. Where the disk has spoilt it, it is healed and used once more."""
        image = self.complete()
        try:
            use(image)
        except DamagedLayerError as damage:
            self._progress(Noted(f"{damage}; doing that now"))
            image = self.heal(image)
            use(image)
        return image

    def heal(self, image: StoredImage) -> StoredImage:
        """Bring again what the disk has spoilt."""
        try:
            return self._pull(image).heal(image)
        finally:
            self._progress.close()

    def _stored(self) -> StoredImage | None:
        try:
            return load(self._store, str(self._reference), self._reference.digest, self._settings.platform)
        except NotFoundError:
            return None

    def _pull(self, image: StoredImage | None) -> Pull:
        """One for all that is to be pulled, so that the receipt has it all."""
        if self._work is None:
            settings, store, traffic = self._settings, self._store, traffic_of(self._settings)
            if image is not None:
                settings = replace(settings, options=replace(settings.options, platform=image.config.platform))
            source = source_of(settings, self._reference, store, traffic)
            self._stack.enter_context(closing(source))
            root = image.documents.root if image else None
            self._work = pull_of(settings, self._reference, source, store, traffic, self._receipt, self._progress, root)
        return self._work


def publish_target(settings: Settings, to: LayoutReference) -> Target:
    if to.scheme == "oci":
        return FolderTarget(Path(to.base))
    options, link = settings.options, settings.connection
    if options.offline:
        raise UsageError(f"{to.name} is behind a network, which --offline forbids; publish to a directory")
    from zchunked.sources.objects.bucket_target import open_bucket_target  # noqa: PLC0415 - an extra

    return open_bucket_target(
        to,
        settings.environment,
        connect_seconds=min(bearable(link.stall_timeout, options.patience.patience), SILENCE_SECONDS),
        is_patient=options.patience.patience > 0,
        plain_http=link.plain_http,
        tls_verify=link.tls_verify,
        cert_dir=link.cert_dir,
    )


def _print(output: Output, to: LayoutReference, receipt: Receipt, failure: ZPullError | None) -> None:
    """What was published, as it can be pulled."""
    if output.format == "json":
        document = asdict(receipt)
        del document["estimate"]
        print_json(document | ({"error": str(failure)} if failure else {}))
    elif failure is None:
        digest = receipt.manifest_digest or ""
        print_line(digest if output.is_quiet else f"{to.name}{f':{to.tag}' if to.tag else ''}@{digest}")


def _tell(receipt: Receipt, sent: Sent, name: str) -> None:
    if receipt.requests:
        print(f"zpull: {summary(receipt)}", file=sys.stderr)
    if sent.blobs or sent.there:
        there = f"; {sent.there} ({human(sent.there_bytes)}) were there" if sent.there else ""
        print(f"zpull: sent {sent.blobs} blobs ({human(sent.bytes)}) to {name}{there}", file=sys.stderr)
