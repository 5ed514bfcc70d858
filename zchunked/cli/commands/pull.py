"""`zpull IMAGE`: wires source, store and progress together and prints the outcome."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from zchunked.cli.progress import Progress, human
from zchunked.cli.render import (
    destinations_of,
    platform_of,
    print_outcome,
    print_plan,
    store_of,
    write_digestfile,
)
from zchunked.cli.tuning import give_back, seldom_collect
from zchunked.errors import InterruptedPullError, PermanentError, TransferError, ZPullError
from zchunked.events import Noted, Warned
from zchunked.export import DamagedLayerError, Destination, ExportTee, export
from zchunked.export.stage import Stage
from zchunked.interfaces import Source
from zchunked.oci.digest import Digest
from zchunked.oci.reference import ImageReference, parse_image
from zchunked.options import GapOptions, Options, Patience, StallLimits
from zchunked.pull.offline import root_of
from zchunked.pull.planner import LayerTask
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt
from zchunked.sources import open_source
from zchunked.sources.layout import LayoutSource
from zchunked.sources.offline import OfflineSource, is_on_this_machine
from zchunked.sources.traffic import Traffic
from zchunked.store import Store
from zchunked.store.images import StoredImage

SILENCE_SECONDS = 10.0


def pull(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """`zpull IMAGE`, and `zpull plan IMAGE` or `--dry-run`, which stop where the download would begin."""
    reference = parse_image(arguments.image)
    is_plan = arguments.verb == "plan" or arguments.dry_run
    destinations = [] if is_plan else destinations_of(arguments)
    receipt = Receipt(str(reference))
    is_silent = arguments.quiet and not arguments.explain_retries
    progress = Progress("none" if is_silent else arguments.progress, sys.stderr, explain=arguments.explain_retries)
    failure: ZPullError | None = None
    works: list[LayerTask] = []
    traffic = Traffic(time.monotonic)
    aside = ExportTee.of(destinations)
    with (
        store_of(arguments) as store,
        closing(source_of(arguments, environment, reference, store, traffic)) as source,
    ):
        pull = pull_of(arguments, reference, source, store, traffic, receipt, progress, aside=aside)
        try:
            if is_plan:
                works = pull.plan()
            else:
                image = _run(pull, aside)
                progress.close()
                stage = aside.stage if aside else None
                _export(pull, image, store, destinations, receipt, progress, stage, force=arguments.force)
        except ZPullError as error:
            failure = error
        except KeyboardInterrupt:  # while it was exported
            failure = InterruptedPullError("interrupted")
        finally:
            progress.close()
    if isinstance(failure, (TransferError, InterruptedPullError)):
        failure = resumable(failure, pull.bytes_here, receipt.bytes.image)
    if failure is None and not is_plan:
        write_digestfile(arguments.digestfile, receipt)
    if is_plan and failure is None and arguments.format == "text":
        print_plan(receipt, works)
    else:
        print_outcome(arguments, reference, receipt, failure)
    if receipt.bytes.image and not is_silent and arguments.progress not in ("none", "json"):
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


def source_of(
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
    reference: ImageReference,
    store: Store,
    traffic: Traffic,
) -> Source:
    """As the registry and network options say. The caller closes it."""
    if arguments.offline and not is_on_this_machine(reference):
        return OfflineSource(str(reference))
    return open_source(
        reference,
        environment=environment,
        traffic=traffic,
        hosts=store,
        connect_seconds=min(bearable(arguments.stall_timeout, arguments.patience), SILENCE_SECONDS),
        stall_seconds=bearable(arguments.stall_timeout, arguments.patience),
        plain_http=arguments.plain_http,
        tls_verify=arguments.tls_verify == "true",
        cert_dir=arguments.cert_dir,
        authfile=arguments.authfile,
        registries_conf=arguments.registries_conf,
        credentials=_creds(arguments.creds),
        documents=store.document,
    )


def pull_of(
    arguments: argparse.Namespace,
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
    options = Options(
        platform=platform_of(arguments.platform),
        jobs=arguments.jobs,
        patience=Patience(arguments.patience, arguments.retry),
        bounds=StallLimits(arguments.deadline, None if files else arguments.min_rate),
        frugality=GapOptions(exact=arguments.exact, max_gap=arguments.max_gap),
        max_bytes=arguments.max_bytes,
        rate=arguments.rate,
        seeds=tuple(Path(text.removeprefix("oci:")) for text in getattr(arguments, "seed", ())),
        offline=isinstance(source, OfflineSource),
    )
    digest = digest or reference.digest
    if options.offline:
        try:
            digest = root_of(store, str(reference), digest, options.platform)
        except ZPullError as error:
            if arguments.verb != "publish":
                print_outcome(arguments, reference, receipt, error)
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
        aside=aside,
    )


def bearable(stated: float | None, patience: float) -> float:
    """Seconds until silence counts as a failure. One that outlasts our patience could never be forgiven."""
    if stated is not None:
        return max(stated, 0.1)
    return min(SILENCE_SECONDS, max(patience / 2, 1.0)) if patience else SILENCE_SECONDS


def _creds(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.readline().rstrip("\n")
    user, colon, password = text.partition(":")
    if not colon:
        password = getpass.getpass(f"Password of {user}: ") if sys.stdin.isatty() else ""
    return user, password


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
