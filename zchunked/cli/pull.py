"""`zpull IMAGE`: wires source, store and progress together and prints the outcome."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Mapping

from zchunked.cli.output import print_receipt, store_of, write_digestfile
from zchunked.errors import TransferError, UsageError, ZPullError
from zchunked.exports import export, parse_destination
from zchunked.oci import Platform, parse_platform, this_platform
from zchunked.progress import Progress, human
from zchunked.pull import Options, Pull
from zchunked.receipt import Receipt
from zchunked.reference import Reference, parse_reference
from zchunked.retry import Patience
from zchunked.sources import open_source
from zchunked.store import Store
from zchunked.traffic import Traffic


def pull(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    reference = parse_reference(arguments.image)
    destinations = [parse_destination(text) for text in arguments.to]
    to_stdout = [one for one in destinations if one.is_stdout]
    if len(to_stdout) > 1:
        raise UsageError("only one --to can write to standard output")
    platform = platform_of(arguments.platform)
    receipt = Receipt(str(reference))
    style = "none" if arguments.quiet and not arguments.explain_retries else arguments.progress
    progress = Progress(style, sys.stderr, explain=arguments.explain_retries)
    failure: ZPullError | None = None
    with store_of(arguments, environment) as store:
        try:
            image = _pull(arguments, environment, reference, platform, store, receipt, progress).run()
            progress.close()
            for destination in destinations:
                receipt.exports.append(export(store, image, destination))
        except ZPullError as error:
            failure = error
        finally:
            progress.close()
    if failure is None:
        write_digestfile(arguments.digestfile, receipt)
    _print(arguments, reference, receipt, failure, quiet_stdout=bool(to_stdout))
    if failure is not None:
        raise _resumable(failure, receipt)
    return 0


def platform_of(text: str | None) -> Platform:
    platform = parse_platform(text) if text else this_platform()
    if platform is None:
        raise UsageError(f"--platform {text!r:.80}: want os/architecture[/variant], such as linux/arm64")
    return platform


def _pull(
    arguments: argparse.Namespace, environment: Mapping[str, str], reference: Reference, platform: Platform, store: Store,
    receipt: Receipt, progress: Progress,
) -> Pull:  # fmt: skip
    options = Options(
        platform=platform, jobs=arguments.jobs, patience=Patience(arguments.patience, arguments.retry),
        deadline=arguments.deadline, min_rate=arguments.min_rate, exact=arguments.exact, max_gap=arguments.max_gap,
    )  # fmt: skip
    traffic = Traffic()
    source = open_source(
        reference, environment=environment, traffic=traffic, hosts=store, jobs=arguments.jobs, stall_seconds=arguments.stall_timeout,
        plain_http=arguments.plain_http, tls_verify=arguments.tls_verify == "true", authfile=arguments.authfile,
        credentials=_creds(arguments.creds), limits=options.limits,
    )  # fmt: skip
    return Pull(str(reference), reference.digest, source, store, traffic, options, receipt, progress)


def _creds(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.readline().rstrip("\n")
    user, colon, password = text.partition(":")
    if not colon:
        password = getpass.getpass(f"Password of {user}: ") if sys.stdin.isatty() else ""
    return user, password


def _print(
    arguments: argparse.Namespace,
    reference: Reference,
    receipt: Receipt,
    failure: ZPullError | None,
    *,
    quiet_stdout: bool,
) -> None:
    out = sys.stderr if quiet_stdout else sys.stdout
    if arguments.format == "json":
        print_receipt(receipt, out, failure)
    elif failure is None:
        print(receipt.manifest_digest if arguments.quiet else f"{reference.name}@{receipt.manifest_digest}", file=out)
    if not arguments.quiet and arguments.progress != "none" and arguments.progress != "json":
        print(f"zpull: {_summary(receipt)}", file=sys.stderr)


def _summary(receipt: Receipt) -> str:
    spent = receipt.bytes
    text = f"fetched {human(spent.fetched)} of {human(spent.image)} in {receipt.requests} requests, {receipt.seconds:.1f} s"
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
