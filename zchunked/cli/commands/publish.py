"""`zpull publish IMAGE TARGET`: complete the stored image, then send it to the target."""

from __future__ import annotations

import sys
from contextlib import closing

from zchunked.cli.commands.pull import plan_exact, summary
from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.progress import human
from zchunked.cli.terminal.render import (
    document_of,
    print_json,
    print_line,
    progress_of,
    write_digestfile,
)
from zchunked.cli.tuning import give_back, seldom_collect
from zchunked.errors import ZPullError
from zchunked.receipt import Receipt
from zchunked.results import Sent


def publish(settings: Settings) -> int:
    """An image in the store is published as it is; one that is not is pulled first, whole."""
    if settings.is_plan:
        return plan_exact(settings)
    give_back()
    seldom_collect()
    output, progress = settings.output, progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        try:
            done = client.publish(settings.image, settings.target, platform=settings.platform)
        except ZPullError as error:
            progress.close()
            if isinstance(error.receipt, Receipt):
                if output.format == "json":
                    print_json(document_of(error.receipt, error))
                _report(settings, error.receipt, error.sent, settings.target)
            raise
    write_digestfile(output.digestfile, done.manifest_digest)
    if output.format == "json":
        print_json(document_of(done.receipt, None))
    else:
        print_line(
            done.manifest_digest if output.is_quiet else f"{done.reference}@{done.manifest_digest}"
        )
    _report(settings, done.receipt, done.sent, done.target)
    return 0


def _report(settings: Settings, receipt: Receipt, sent: Sent | None, target: str) -> None:
    if not settings.output.is_talkative:
        return
    if receipt.requests:
        print(f"zpull: {summary(receipt)}", file=sys.stderr)
    if sent is not None and (sent.blobs or sent.there):
        there = f"; {sent.there} ({human(sent.there_bytes)}) were there" if sent.there else ""
        print(
            f"zpull: sent {sent.blobs} blobs ({human(sent.bytes)}) to {target}{there}",
            file=sys.stderr,
        )
