"""`zpull push SOURCE TARGET`: completes what the store has of the image, then uploads what the registry lacks."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, replace

from zchunked.cli.commands.pull import pull
from zchunked.cli.commands.wiring import context_of
from zchunked.cli.progress import Progress, human
from zchunked.cli.render import print_json, print_line, progress_of, write_digestfile
from zchunked.cli.settings import Settings
from zchunked.cli.stores import open_store
from zchunked.errors import InterruptedPullError, TransferError, UsageError, ZPullError
from zchunked.export.shipment import shipment_of
from zchunked.oci.quoting import typed as quoted
from zchunked.oci.reference import Reference, parse_image
from zchunked.operations.context import SILENCE_SECONDS, bearable, traffic_of
from zchunked.operations.pulling import resumable
from zchunked.operations.referrers import with_referrers
from zchunked.operations.sharing import SourceImage
from zchunked.push.push import Pusher
from zchunked.push.upload import Pushed
from zchunked.receipt import Receipt
from zchunked.sources.connect import Connector
from zchunked.sources.registry_upload import RegistryUploads
from zchunked.sources.traffic import Traffic
from zchunked.store import Store
from zchunked.store.images import StoredImage


def push(settings: Settings) -> int:
    """An image in the store is pushed as it is; one that is not is pulled first, whole."""
    options, output = settings.options, settings.output
    settings = replace(settings, options=replace(options, frugality=replace(options.frugality, exact=True)))
    if settings.is_plan:
        return pull(settings)
    target, reference = registry_target(settings), parse_image(settings.image)
    receipt, traffic = Receipt(str(reference)), traffic_of(settings.options)
    progress = progress_of(output)
    failure: ZPullError | None = None
    pushers: list[Pusher] = []
    began = time.monotonic()
    with (
        open_store(settings.store) as store,
        closing(open_uploads(settings, target, traffic)) as registry,
        ExitStack() as stack,
    ):
        context = context_of(source_settings(settings, target), store, progress)
        work = SourceImage(context, reference, settings.platform, receipt, stack)

        def bring(image: StoredImage) -> None:
            shipment = shipment_of(store, image)
            if settings.own["with_referrers"]:
                with work.objects() as objects:
                    shipment = with_referrers(objects, store, shipment)
            pushers.append(pusher_of(settings, target, registry, store, progress))
            pushers[-1].run(shipment, target.tag)

        try:
            work.used(bring)
        except ZPullError as error:
            failure = error
        except KeyboardInterrupt:
            failure = InterruptedPullError("interrupted")
        finally:
            progress.close()
    pusher = pushers[-1] if pushers else None
    if isinstance(failure, (TransferError, InterruptedPullError)):
        failure = resumable_push(failure) if pusher else resumable(failure, work.bytes_here, receipt.bytes.image)
    if failure is None:
        write_digestfile(output.digestfile, receipt)
    _print(settings, target, receipt, pusher, failure, requests=traffic.requests, seconds=time.monotonic() - began)
    if pusher is not None and output.tells_more:
        print(f"zpull: {told(pusher.pushed, target.name)}", file=sys.stderr)
    if failure is not None:
        raise failure
    return 0


def resumable_push(failure: ZPullError) -> ZPullError:
    """What a person wants to know of a push that ended early."""
    return type(failure)(f"{failure}; what arrived stays there, run the same command to resume")


def registry_target(settings: Settings) -> Reference:
    """Where to push. UsageError for anything but a registry, and for a digest: that is SOURCE's."""
    target = parse_image(settings.target)
    if not isinstance(target, Reference):
        raise UsageError(
            f"invalid TARGET: expected a registry's reference, got {quoted(settings.target, 200)}; "
            "`zpull publish` brings images elsewhere"
        )
    if target.digest is not None:
        raise UsageError(f"invalid TARGET: expected a tag, got {quoted(settings.target, 200)}; a digest is SOURCE's")
    if settings.options.offline:
        raise UsageError(f"{target.name} is behind a network, which --offline forbids")
    return target


def source_settings(settings: Settings, target: Reference) -> Settings:
    """Credentials that were typed are for TARGET."""
    source = parse_image(settings.image)
    if isinstance(source, Reference) and source.host != target.host:
        return replace(settings, connection=replace(settings.connection, credentials=None))
    return settings


def open_uploads(settings: Settings, target: Reference, traffic: Traffic) -> RegistryUploads:
    """As the registry and network options say. The caller closes it."""
    link = settings.connection
    seconds = bearable(link.stall_timeout, settings.options.patience.patience)
    connector = Connector(
        settings.environment,
        traffic,
        connect_seconds=min(seconds, SILENCE_SECONDS),
        stall_seconds=seconds,
        plain_http=link.plain_http,
        tls_verify=link.tls_verify,
        cert_dir=link.cert_dir,
        authfile=link.authfile,
        credentials=link.credentials,
        registries_conf=link.registries_conf,
    )
    return connector.uploads(target, mounted_from(settings, target))


def mounted_from(settings: Settings, target: Reference) -> tuple[str, ...]:
    """Repositories to mount from, without the registry's name, and without TARGET itself."""
    names = [text.removeprefix(f"{target.host}/") for text in settings.own.get("mount_from", ())]
    source = parse_image(settings.image)
    if isinstance(source, Reference) and source.host == target.host:
        names.append(source.repository)
    return tuple(dict.fromkeys(name for name in names if name != target.repository))


def pusher_of(
    settings: Settings, target: Reference, registry: RegistryUploads, store: Store, progress: Progress
) -> Pusher:
    options = settings.options
    return Pusher(
        registry,
        store.hints,
        jobs=min(options.jobs, 4),  # more uploads at a time only make each one slower
        patience=options.patience,
        show=progress,
        deadline=options.bounds.deadline,
        mount_from=mounted_from(settings, target),
    )


def _print(
    settings: Settings,
    target: Reference,
    receipt: Receipt,
    pusher: Pusher | None,
    failure: ZPullError | None,
    *,
    requests: int,
    seconds: float,
) -> None:
    """What stands there now, as it can be pulled."""
    if settings.output.format == "json":
        document: dict[str, object] = {
            "reference": str(target),
            "source": receipt.reference,
            "platform": receipt.platform,
            "manifest_digest": receipt.manifest_digest,
            "image_id": receipt.image_id,
            "push": asdict(pusher.pushed if pusher else Pushed()),
            "fetched_bytes": receipt.bytes.fetched,
            "requests": requests,
            "retries": pusher.retries if pusher else 0,
            "seconds": round(seconds, 3),
        }
        print_json(document | ({"error": str(failure)} if failure else {}))
    elif failure is None:
        digest = receipt.manifest_digest or ""
        print_line(digest if settings.output.is_quiet else f"{target}@{digest}")


def told(pushed: Pushed, name: str) -> str:
    """In one line."""
    text = f"sent {pushed.blobs} blobs ({human(pushed.sent)}) to {name}"
    if pushed.sent_twice:
        text += f", {human(pushed.sent_twice)} of it twice"
    if pushed.resumed_bytes:
        text += f"; {human(pushed.resumed_bytes)} were there from an earlier push"
    if pushed.mounted:
        text += f"; {pushed.mounted} mounted"
    if pushed.skipped:
        text += f"; {pushed.skipped} ({human(pushed.skipped_bytes)}) were there"
    return text
