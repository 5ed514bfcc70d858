"""`zpull IMAGE` and `zpull plan IMAGE`: pull or plan, and print the outcome."""

from __future__ import annotations

import sys
from contextlib import closing

from zchunked.cli.progress import human
from zchunked.cli.render import print_outcome, print_plan, progress_of, write_digestfile
from zchunked.cli.settings import Settings, client_of
from zchunked.cli.tuning import give_back, seldom_collect
from zchunked.errors import ZPullError
from zchunked.receipt import Receipt


def pull(settings: Settings) -> int:
    """`zpull IMAGE`, and `zpull plan IMAGE` or `--dry-run`, which stop where the download would begin."""
    give_back()
    seldom_collect()
    if settings.is_plan:
        return _plan(settings)
    output, progress = settings.output, progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        try:
            done = client.pull(settings.image, to=settings.to, force=settings.force, load=settings.load)
        except ZPullError as error:
            progress.close()
            _explain(settings, error)
            raise
    write_digestfile(output.digestfile, done.receipt)
    print_outcome(output, done.receipt, settings.to)
    tell(settings, done.receipt)
    return 0


def _plan(settings: Settings) -> int:
    output, progress = settings.output, progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        try:
            plan = client.plan(settings.image)
        except ZPullError as error:
            progress.close()
            _explain(settings, error)
            raise
    if output.format == "text":
        print_plan(plan, settings.options.rate)
    else:
        print_outcome(output, plan.receipt)
    tell(settings, plan.receipt)
    return 0


def _explain(settings: Settings, error: ZPullError) -> None:
    """What a failure cost goes where the result would have gone."""
    if isinstance(error.receipt, Receipt):
        print_outcome(settings.output, error.receipt, settings.to, error)
        tell(settings, error.receipt)


def tell(settings: Settings, receipt: Receipt) -> None:
    """In one line for people, once anything is known of the image."""
    if receipt.bytes.image and settings.output.tells_more:
        print(f"zpull: {summary(receipt)}", file=sys.stderr)


def summary(receipt: Receipt) -> str:
    spent = receipt.bytes
    requests = f"{receipt.requests} request" + ("" if receipt.requests == 1 else "s")
    text = f"fetched {human(spent.fetched)} of {human(spent.image)}, {requests}, {receipt.seconds:.1f} s"
    if receipt.retries or spent.wasted:
        text += f"; {receipt.retries} retries, {human(spent.wasted)} wasted"
    return text
