"""`zpull publish IMAGE TARGET`: completes what the store has of the image, then brings it to the target."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path

from zchunked.cli.commands.pull import SILENCE_SECONDS, bearable, pull, pull_of, resumable, source_of, summary
from zchunked.cli.progress import Progress, human
from zchunked.cli.render import platform_of, print_json, store_of, write_digestfile
from zchunked.errors import InterruptedPullError, NotFoundError, TransferError, UsageError, ZPullError
from zchunked.events import Noted
from zchunked.export import DamagedLayerError
from zchunked.export.destination import parse_target
from zchunked.export.folder import FolderTarget
from zchunked.export.publisher import Publisher, Sent, Target, is_complete
from zchunked.oci.reference import ImageReference, LayoutReference, parse_image
from zchunked.options import Patience
from zchunked.pull.pull import Pull
from zchunked.receipt import Export, Receipt, image_bytes
from zchunked.sources.traffic import Traffic
from zchunked.store import Store
from zchunked.store.images import StoredImage, load


def publish(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """An image in the store is published as it is; one that is not is pulled first, whole."""
    # A published layer is the registry's own blob, so of one that came in parts the rest is fetched.
    arguments = argparse.Namespace(**vars(arguments) | {"exact": True, "to": []})
    if arguments.dry_run:
        return pull(arguments, environment)
    reference, to = parse_image(arguments.image), parse_target(arguments.target)
    to = replace(to, tag=to.tag or reference.tag)
    receipt = Receipt(str(reference))
    is_silent = arguments.quiet and not arguments.explain_retries
    progress = Progress("none" if is_silent else arguments.progress, sys.stderr, explain=arguments.explain_retries)
    failure: ZPullError | None = None
    with store_of(arguments) as store, closing(_target(arguments, environment, to)) as target, ExitStack() as stack:
        work = _Work(arguments, environment, reference, store, receipt, progress, stack)
        publisher = work.publisher(target)
        try:
            image = work.complete()
            try:
                publisher.run(image, to.tag)
            except DamagedLayerError as damage:
                progress(Noted(f"{damage}; doing that now"))
                image = work.heal(image)
                publisher = work.publisher(target)
                publisher.run(image, to.tag)
            receipt.exports.append(Export(arguments.target, image.documents.manifest_digest))
        except ZPullError as error:
            failure = error
        except KeyboardInterrupt:
            failure = InterruptedPullError("interrupted")
        finally:
            progress.close()
    if isinstance(failure, (TransferError, InterruptedPullError)):
        failure = resumable(failure, work.bytes_here, receipt.bytes.image)
    if failure is None:
        write_digestfile(arguments.digestfile, receipt)
    _print(arguments, to, receipt, failure)
    if not is_silent and arguments.progress not in ("none", "json"):
        _tell(receipt, publisher.sent, target.name)
    if failure is not None:
        raise failure
    return 0


class _Work:
    """The source's side of a publication: nothing of it is opened for an image that is complete in the store."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        environment: Mapping[str, str],
        reference: ImageReference,
        store: Store,
        receipt: Receipt,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        """What is opened is closed with `stack`."""
        self._arguments, self._environment, self._reference = arguments, environment, reference
        self._store, self._receipt, self._progress, self._stack = store, receipt, progress, stack
        self._work: Pull | None = None

    @property
    def bytes_here(self) -> int:
        return self._work.bytes_here if self._work else self._receipt.bytes.cached

    def publisher(self, target: Target) -> Publisher:
        arguments, left = self._arguments, self._arguments.deadline
        if left is not None:
            left = max(0.0, left - self._receipt.seconds)
        patience = Patience(arguments.patience, arguments.retry)
        return Publisher(
            self._store, target, jobs=arguments.jobs, patience=patience, show=self._progress, deadline=left
        )

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

    def heal(self, image: StoredImage) -> StoredImage:
        """Bring again what the disk has spoilt."""
        try:
            return self._pull(image).heal(image)
        finally:
            self._progress.close()

    def _stored(self) -> StoredImage | None:
        platform = platform_of(self._arguments.platform) if self._arguments.platform else None
        try:
            return load(self._store, str(self._reference), self._reference.digest, platform)
        except NotFoundError:
            return None

    def _pull(self, image: StoredImage | None) -> Pull:
        """One for all that is to be pulled, so that the receipt has it all."""
        if self._work is None:
            arguments, store, traffic = self._arguments, self._store, Traffic(time.monotonic)
            if image is not None:
                arguments = argparse.Namespace(**vars(arguments) | {"platform": str(image.config.platform)})
            source = source_of(arguments, self._environment, self._reference, store, traffic)
            self._stack.enter_context(closing(source))
            root = image.documents.root if image else None
            self._work = pull_of(
                arguments, self._reference, source, store, traffic, self._receipt, self._progress, root
            )
        return self._work


def _target(arguments: argparse.Namespace, environment: Mapping[str, str], to: LayoutReference) -> Target:
    if to.scheme == "oci":
        return FolderTarget(Path(to.base))
    if arguments.offline:
        raise UsageError(f"{to.name} is behind a network, which --offline forbids; publish to a directory")
    from zchunked.sources.objects.bucket_target import open_bucket_target  # noqa: PLC0415 - an extra

    return open_bucket_target(
        to,
        environment,
        connect_seconds=min(bearable(arguments.stall_timeout, arguments.patience), SILENCE_SECONDS),
        is_patient=arguments.patience > 0,
        plain_http=arguments.plain_http,
        tls_verify=arguments.tls_verify == "true",
        cert_dir=Path(arguments.cert_dir) if arguments.cert_dir else None,
    )


def _print(arguments: argparse.Namespace, to: LayoutReference, receipt: Receipt, failure: ZPullError | None) -> None:
    """What was published, as it can be pulled."""
    if arguments.format == "json":
        document = asdict(receipt)
        del document["estimate"]
        print_json(document | ({"error": str(failure)} if failure else {}))
    elif failure is None:
        digest = receipt.manifest_digest
        print(digest if arguments.quiet else f"{to.name}{f':{to.tag}' if to.tag else ''}@{digest}")


def _tell(receipt: Receipt, sent: Sent, name: str) -> None:
    if receipt.requests:
        print(f"zpull: {summary(receipt)}", file=sys.stderr)
    if sent.blobs or sent.there:
        there = f"; {sent.there} ({human(sent.there_bytes)}) were there" if sent.there else ""
        print(f"zpull: sent {sent.blobs} blobs ({human(sent.bytes)}) to {name}{there}", file=sys.stderr)
