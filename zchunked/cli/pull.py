"""`zpull IMAGE`: wires source, store and progress together and prints the outcome."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Mapping

from zchunked.cli.output import destinations_of, platform_of, print_outcome, store_of, write_digestfile
from zchunked.errors import TransferError, ZPullError
from zchunked.exports import export
from zchunked.progress import Progress, human
from zchunked.pull import Options, Pull
from zchunked.receipt import Receipt
from zchunked.reference import Reference, parse_reference
from zchunked.retry import Patience
from zchunked.schedule import Frugality
from zchunked.sources import open_source
from zchunked.store import Store
from zchunked.traffic import Traffic


def pull(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    reference = parse_reference(arguments.image)
    destinations = destinations_of(arguments)
    receipt = Receipt(str(reference))
    is_silent = arguments.quiet and not arguments.explain_retries
    progress = Progress("none" if is_silent else arguments.progress, sys.stderr, explain=arguments.explain_retries)
    failure: ZPullError | None = None
    with store_of(arguments) as store:
        try:
            image = _pull(arguments, environment, reference, store, receipt, progress).run()
            progress.close()
            for destination in destinations:
                receipt.exports.append(export(store, image, destination))
        except ZPullError as error:
            failure = error
        finally:
            progress.close()
    if failure is None:
        write_digestfile(arguments.digestfile, receipt)
    print_outcome(arguments, reference, receipt, failure)
    if not is_silent and arguments.progress not in ("none", "json"):
        print(f"zpull: {_summary(receipt)}", file=sys.stderr)
    if failure is not None:
        raise _resumable(failure, receipt)
    return 0


def _pull(
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
    reference: Reference,
    store: Store,
    receipt: Receipt,
    progress: Progress,
) -> Pull:
    options = Options(
        platform=platform_of(arguments.platform),
        jobs=arguments.jobs,
        patience=Patience(arguments.patience, arguments.retry),
        deadline=arguments.deadline,
        min_rate=arguments.min_rate,
        frugality=Frugality(exact=arguments.exact, max_gap=arguments.max_gap),
    )
    traffic = Traffic()
    source = open_source(
        reference,
        environment=environment,
        traffic=traffic,
        hosts=store,
        stall_seconds=arguments.stall_timeout,
        plain_http=arguments.plain_http,
        tls_verify=arguments.tls_verify == "true",
        authfile=arguments.authfile,
        credentials=_creds(arguments.creds),
        limits=options.limits,
    )
    return Pull(
        str(reference),
        reference.digest,
        source,
        store,
        traffic=traffic,
        options=options,
        receipt=receipt,
        show=progress,
    )


def _creds(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.readline().rstrip("\n")
    user, colon, password = text.partition(":")
    if not colon:
        password = getpass.getpass(f"Password of {user}: ") if sys.stdin.isatty() else ""
    return user, password


def _summary(receipt: Receipt) -> str:
    spent = receipt.bytes
    text = (
        f"fetched {human(spent.fetched)} of {human(spent.image)}, {receipt.requests} requests, {receipt.seconds:.1f} s"
    )
    if receipt.retries or spent.wasted:
        text += f"; {receipt.retries} retries, {human(spent.wasted)} wasted"
    return text


def _resumable(failure: ZPullError, receipt: Receipt) -> ZPullError:
    """Someone who reads this at night wants to know that nothing is lost."""
    if isinstance(failure, TransferError) and receipt.bytes.image:
        here = min(receipt.bytes.cached + receipt.bytes.needed + receipt.bytes.metadata, receipt.bytes.image)
        text = f"{failure}; {human(here)} of {human(receipt.bytes.image)} are here, run the same command to resume"
        return type(failure)(text)
    return failure
