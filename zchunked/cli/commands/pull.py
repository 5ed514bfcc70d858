"""`zpull IMAGE` and `zpull plan IMAGE`: pull or plan, and print the outcome."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from zchunked import Client, Plan, PullResult
from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.progress import Progress, human
from zchunked.cli.terminal.render import (
    print_error,
    print_outcome,
    print_plan,
    progress_of,
    write_digestfile,
)
from zchunked.cli.tuning import give_back, seldom_collect
from zchunked.errors import InterruptedPullError, UsageError, ZPullError
from zchunked.oci.quoting import typed
from zchunked.oci.reference import parse_image
from zchunked.receipt import Receipt


def pull(settings: Settings) -> int:
    """`zpull IMAGE…`, and `zpull plan IMAGE…` or `--dry-run`, which stop before the download.

    Of several images each gets its receipt, in their order. One that fails stops no other; the exit
    code is the highest of theirs.
    """
    give_back()
    seldom_collect()
    images = images_of(settings)
    progress = progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        if len(images) > 1:
            return _several(settings, client, progress, images)
        (_plan if settings.is_plan else _pull)(settings, client, progress, images[0])
    return 0


def plan_exact(settings: Settings) -> int:
    """Plan the pull that comes before an image is published or pushed: of whole blobs."""
    options = settings.options
    return pull(replace(settings, options=replace(options, gaps=replace(options.gaps, exact=True))))


def _several(settings: Settings, client: Client, progress: Progress, images: list[str]) -> int:
    code = 0
    interrupted: InterruptedPullError | None = None
    if settings.is_plan:
        outcomes: Iterator[Plan | PullResult | ZPullError] = client.plan_all(images)
    else:
        outcomes = client.pull_all(images, to=settings.to, force=settings.force, load=settings.load)
    for image, outcome in zip(images, outcomes, strict=True):
        progress.close()
        if isinstance(outcome, PullResult):
            _report_pull(settings, outcome)
            continue
        if isinstance(outcome, Plan):
            _report_plan(settings, outcome)
            continue
        _explain(settings, outcome)
        if isinstance(outcome, InterruptedPullError):
            interrupted = interrupted or outcome
        else:
            print_error(f"{image}: {outcome}")
            code = max(code, outcome.exit_code)
    if interrupted is not None:
        raise interrupted
    return code


def images_of(settings: Settings) -> list[str]:
    """Images as typed and listed, each once. UsageError for an invalid one, before any work."""
    words, listed = settings.own["image"], settings.own.get("from")
    if isinstance(words, str):  # `publish --dry-run` and the like take one image
        return [words]
    images = [*words, *(_listed(listed) if listed else ())]
    images = list(dict.fromkeys(images))
    if not images:
        raise UsageError(
            f"{settings.verb} needs an IMAGE, or a list of them with --from FILE; zpull --help "
            "shows how"
        )
    for image in images:
        parse_image(image)
    if len(images) > 1 and settings.output.digestfile is not None:
        raise UsageError("--digestfile holds one digest, and there are several images")
    return images


def _listed(path: str) -> list[str]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "expected text in UTF-8"
        raise UsageError(f"cannot read the list of images {typed(path)}: {reason}") from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _pull(settings: Settings, client: Client, progress: Progress, image: str) -> None:
    try:
        done = client.pull(image, to=settings.to, force=settings.force, load=settings.load)
    except ZPullError as error:
        progress.close()
        _explain(settings, error)
        raise
    progress.close()
    write_digestfile(settings.output.digestfile, done.manifest_digest)
    _report_pull(settings, done)


def _report_pull(settings: Settings, done: PullResult) -> None:
    print_outcome(settings.output, done.receipt, settings.to)
    report(settings, done.receipt)


def _plan(settings: Settings, client: Client, progress: Progress, image: str) -> None:
    try:
        plan = client.plan(image)
    except ZPullError as error:
        progress.close()
        _explain(settings, error)
        raise
    _report_plan(settings, plan)


def _report_plan(settings: Settings, plan: Plan) -> None:
    if settings.output.format == "text":
        print_plan(plan, settings.options.rate)
    else:
        print_outcome(settings.output, plan.receipt)
    report(settings, plan.receipt)


def _explain(settings: Settings, error: ZPullError) -> None:
    """What a failure cost goes where the result would have gone."""
    if isinstance(error.receipt, Receipt):
        print_outcome(settings.output, error.receipt, settings.to, error)
        report(settings, error.receipt)


def report(settings: Settings, receipt: Receipt) -> None:
    """Print one line of summary, once anything is known of the image."""
    if receipt.bytes.image and settings.output.is_talkative:
        print(f"zpull: {summary(receipt)}", file=sys.stderr)


def summary(receipt: Receipt) -> str:
    spent = receipt.bytes
    requests = f"{receipt.requests} request" + ("" if receipt.requests == 1 else "s")
    text = (
        f"fetched {human(spent.fetched)} of {human(spent.image)}, {requests}, "
        f"{receipt.seconds:.1f} s"
    )
    if receipt.retries or spent.wasted:
        text += f"; {receipt.retries} retries, {human(spent.wasted)} wasted"
    return text
