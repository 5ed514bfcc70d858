"""From words to the command that does what they say; each command's modules are loaded only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from zchunked.cli.help import first_screen
from zchunked.cli.parser import parse


def dispatch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Parse and run. A word that is a verb is a verb; anything else is an image to pull."""
    if not argv:
        print(first_screen(is_short=True), file=sys.stderr)
        return 2
    parsed = parse(argv, environment)
    if parsed.verb == "print-manual":
        from zchunked.cli.manual import manual  # noqa: PLC0415

        print(manual(), end="")
        return 0
    if parsed.verb == "print-completion":
        from zchunked.cli.completion import completion  # noqa: PLC0415

        print(completion(parsed.values["shell"]))
        return 0
    from zchunked.cli.settings import settings  # noqa: PLC0415 - the version needs none of this

    command = settings(parsed, environment)
    if parsed.verb in ("pull", "plan"):
        from zchunked.cli.commands import pull  # noqa: PLC0415 - the network libraries take time to load

        return pull.pull(command)
    if parsed.verb == "publish":
        from zchunked.cli.commands import publish  # noqa: PLC0415

        return publish.publish(command)
    if parsed.verb == "push":
        from zchunked.cli.commands import push  # noqa: PLC0415

        return push.push(command)
    if parsed.verb == "convert":
        from zchunked.cli.commands import convert  # noqa: PLC0415

        return convert.convert(command)
    if parsed.verb == "serve":
        from zchunked.cli.commands import serve  # noqa: PLC0415

        return serve.serve(command)
    if parsed.verb in ("fetch", "locate"):
        from zchunked.cli.commands import objects  # noqa: PLC0415

        return {"fetch": objects.fetch, "locate": objects.locate}[parsed.verb](command)
    if parsed.verb in ("rm", "gc", "status"):
        from zchunked.cli.commands import keeping, status  # noqa: PLC0415

        return {"rm": keeping.remove, "gc": keeping.collect_garbage, "status": status.status}[parsed.verb](command)
    from zchunked.cli.commands import stored  # noqa: PLC0415

    return {"images": stored.images, "export": stored.export_image, "verify": stored.verify_store}[parsed.verb](command)
