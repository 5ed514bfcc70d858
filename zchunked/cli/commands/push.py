"""`zpull push SOURCE TARGET`: complete the stored image, then upload what the registry lacks."""

from __future__ import annotations

import sys
from contextlib import closing

from msgspec import to_builtins

from zchunked.cli.commands.pull import plan_exact
from zchunked.cli.settings import ALL, Settings, client_of
from zchunked.cli.terminal.progress import human
from zchunked.cli.terminal.render import print_json, print_line, progress_of, write_digestfile
from zchunked.cli.tuning import give_back, seldom_collect
from zchunked.errors import ZPullError
from zchunked.receipt import Receipt
from zchunked.results import PushResult, Uploaded

_NOTHING = Uploaded(0, 0, 0, 0, 0, 0, 0)


def push(settings: Settings) -> int:
    """An image in the store is pushed as it is; one that is not is pulled first, whole."""
    if settings.is_plan:
        return plan_exact(settings)
    give_back()
    seldom_collect()
    output, progress = settings.output, progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        try:
            done = client.push(
                settings.image,
                settings.target,
                platform=ALL if settings.own["platform"] == ALL else settings.platform,
                mount_from=settings.own["mount_from"],
                referrers=settings.own["with_referrers"],
            )
        except ZPullError as error:
            progress.close()
            if isinstance(error.receipt, Receipt):
                result = PushResult(
                    settings.target, "", error.uploaded or _NOTHING, 0, 0, 0.0, error.receipt
                )
                if output.format == "json":
                    print_json(_document(result) | {"error": str(error)})
                _report(settings, result)
            raise
    write_digestfile(output.digestfile, done.manifest_digest)
    if output.format == "json":
        print_json(_document(done))
    else:
        print_line(
            done.manifest_digest if output.is_quiet else f"{done.reference}@{done.manifest_digest}"
        )
    _report(settings, done)
    return 0


def _document(done: PushResult) -> dict[str, object]:
    receipt = done.receipt
    return {
        "reference": done.reference,
        "source": receipt.reference,
        "platform": receipt.platform,
        "manifest_digest": done.manifest_digest or None,
        "image_id": receipt.image_id,
        "push": to_builtins(done.uploaded),
        "fetched_bytes": receipt.bytes.fetched,
        "requests": done.requests,
        "retries": done.retries,
        "seconds": done.seconds,
    }


def _report(settings: Settings, done: PushResult) -> None:
    if settings.output.is_talkative:
        print(f"zpull: {summary_of(done.uploaded, done.reference)}", file=sys.stderr)


def summary_of(uploaded: Uploaded, name: str) -> str:
    """What a push sent, in one line."""
    text = f"sent {uploaded.blobs} blobs ({human(uploaded.sent)}) to {name}"
    if uploaded.sent_twice:
        text += f", {human(uploaded.sent_twice)} of it twice"
    if uploaded.resumed_bytes:
        text += f"; {human(uploaded.resumed_bytes)} were there from an earlier push"
    if uploaded.mounted:
        text += f"; {uploaded.mounted} mounted"
    if uploaded.skipped:
        text += f"; {uploaded.skipped} ({human(uploaded.skipped_bytes)}) were there"
    return text
