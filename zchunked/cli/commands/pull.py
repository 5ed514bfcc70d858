"""`zpull IMAGE`: wires source, store and progress together and prints the outcome."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace

from zchunked.cli.progress import Progress, human
from zchunked.cli.render import destinations_of, print_outcome, print_plan, progress_of, write_digestfile
from zchunked.cli.settings import Settings, traffic_of
from zchunked.cli.tuning import give_back, seldom_collect
from zchunked.errors import InterruptedPullError, PermanentError, TransferError, ZPullError
from zchunked.events import Noted, Warned
from zchunked.export import DamagedLayerError, Destination, ExportTee, export, parse_destination
from zchunked.export.stage import Stage
from zchunked.interfaces import Source
from zchunked.oci.digest import Digest
from zchunked.oci.reference import ImageReference, parse_image
from zchunked.pull.offline import root_of
from zchunked.pull.planner import LayerTask
from zchunked.pull.pull import Pull
from zchunked.receipt import Accounts, Receipt
from zchunked.sources import open_source
from zchunked.sources.layout import LayoutSource
from zchunked.sources.offline import OfflineSource, is_on_this_machine
from zchunked.sources.traffic import Traffic
from zchunked.store import Store
from zchunked.store.images import StoredImage

SILENCE_SECONDS = 10.0


def pull(settings: Settings) -> int:
    """`zpull IMAGE`, and `zpull plan IMAGE` or `--dry-run`, which stop where the download would begin."""
    reference, output = parse_image(settings.image), settings.output
    destinations = [] if settings.is_plan else destinations_of(settings.to, force=settings.force)
    receipt = Receipt(str(reference))
    progress = progress_of(output)
    failure: ZPullError | None = None
    works: list[LayerTask] = []
    traffic = traffic_of(settings)
    aside = ExportTee.of(destinations)
    with (
        Store(settings.store) as store,
        closing(source_of(settings, reference, store, traffic)) as source,
    ):
        pull = pull_of(settings, reference, source, store, traffic, receipt, progress, aside=aside)
        try:
            if settings.is_plan:
                works = pull.plan()
            else:
                image = _run(pull, aside)
                progress.close()
                stage = aside.stage if aside else None
                _export(pull, image, store, destinations, receipt, progress, stage, force=settings.force)
        except ZPullError as error:
            failure = error
        except KeyboardInterrupt:  # while it was exported
            failure = InterruptedPullError("interrupted")
        finally:
            progress.close()
    if isinstance(failure, (TransferError, InterruptedPullError)):
        failure = resumable(failure, pull.bytes_here, receipt.bytes.image)
    if failure is None and not settings.is_plan:
        write_digestfile(output.digestfile, receipt)
    if settings.is_plan and failure is None and output.format == "text":
        print_plan(receipt, works, settings.options.rate)
    else:
        print_outcome(output, reference, receipt, failure, destinations)
    if receipt.bytes.image and output.tells_more:
        print(f"zpull: {summary(receipt)}", file=sys.stderr)
    if failure is not None:
        raise failure
    return 0


def _run(pull: Pull, aside: ExportTee | None) -> StoredImage:
    try:
        return pull.run()
    except BaseException:
        if aside is not None:
            aside.drop()
        raise


def _export(
    pull: Pull,
    image: StoredImage,
    store: Store,
    destinations: list[Destination],
    receipt: Receipt,
    progress: Progress,
    stage: Stage | None,
    *,
    force: bool,
) -> None:
    """To every destination. Where the disk has spoilt what was pulled, that is pulled again, once."""
    is_healed = False

    def write(destination: Destination, stage: Stage | None) -> None:
        tell = lambda text: progress(Noted(text))  # noqa: E731
        if warning := receipt.exported(export(store, image, destination, stage=stage, force=force, tell=tell)):
            progress(Warned(warning))

    for destination in destinations:
        try:
            write(destination, stage)
        except DamagedLayerError as damage:
            if is_healed:
                raise
            progress(Noted(f"{damage}; doing that now"))
            image, is_healed = pull.heal(image), True
            progress.close()
            if destination.is_stream:
                raise DamagedLayerError(
                    f"the archive at {destination.path} is broken, for layers were damaged in the store ({damage}); "
                    "they are healed now: run the same command again"
                ) from damage
            write(destination, None)


def source_of(settings: Settings, reference: ImageReference, store: Store, traffic: Traffic) -> Source:
    """As the registry and network options say. The caller closes it."""
    if settings.options.offline and not is_on_this_machine(reference):
        return OfflineSource(str(reference))
    link = settings.connection
    bearable_seconds = bearable(link.stall_timeout, settings.options.patience.patience)
    return open_source(
        reference,
        environment=settings.environment,
        traffic=traffic,
        hosts=store,
        connect_seconds=min(bearable_seconds, SILENCE_SECONDS),
        stall_seconds=bearable_seconds,
        plain_http=link.plain_http,
        tls_verify=link.tls_verify,
        cert_dir=link.cert_dir,
        authfile=link.authfile,
        registries_conf=link.registries_conf,
        credentials=link.credentials,
        documents=store.document,
        spool=store.folder,
    )


def pull_of(
    settings: Settings,
    reference: ImageReference,
    source: Source,
    store: Store,
    traffic: Traffic,
    receipt: Receipt,
    progress: Progress,
    digest: Digest | None = None,
    aside: ExportTee | None = None,
) -> Pull:
    """`digest`: what to pull instead of what the reference names by now."""
    give_back()
    seldom_collect()
    files = source.files if isinstance(source, LayoutSource) else None
    is_local = isinstance(source, LayoutSource) and source.is_local
    options = replace(settings.options, offline=isinstance(source, OfflineSource))
    if is_local:
        options = replace(options, bounds=replace(options.bounds, min_rate=None))
    digest = digest or reference.digest
    if options.offline:
        try:
            digest = root_of(store, str(reference), digest, options.platform)
        except ZPullError as error:
            if settings.verb != "publish":
                print_outcome(settings.output, reference, receipt, error, map(parse_destination, settings.to))
            raise
    return Pull(
        str(reference),
        digest,
        source,
        store,
        traffic=traffic,
        options=options,
        receipt=receipt,
        show=progress,
        files=files,
        accounts=Accounts(is_free=is_local),
        aside=aside,
    )


def bearable(stated: float | None, patience: float) -> float:
    """Seconds until silence counts as a failure. One that outlasts our patience could never be forgiven."""
    if stated is not None:
        return max(stated, 0.1)
    return min(SILENCE_SECONDS, max(patience / 2, 1.0)) if patience else SILENCE_SECONDS


def summary(receipt: Receipt) -> str:
    spent = receipt.bytes
    requests = f"{receipt.requests} request" + ("" if receipt.requests == 1 else "s")
    text = f"fetched {human(spent.fetched)} of {human(spent.image)}, {requests}, {receipt.seconds:.1f} s"
    if receipt.retries or spent.wasted:
        text += f"; {receipt.retries} retries, {human(spent.wasted)} wasted"
    return text


def resumable(failure: ZPullError, here: int, size: int) -> ZPullError:
    """Say what is kept and how to go on, except where the same command would fail in the same way."""
    if isinstance(failure, PermanentError):
        return failure
    share = f"{here} of {size} bytes are here ({100 * here // size} %), " if size else ""
    return type(failure)(f"{failure}; {share}run the same command to resume")
