"""`zpull serve`: a registry on loopback that every engine of this machine can pull through."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import msgspec

from zchunked.cli.commands.budget import budget_of
from zchunked.cli.commands.wiring import context_of
from zchunked.cli.settings import Settings as Command
from zchunked.cli.stores import open_store
from zchunked.errors import LocalError

if TYPE_CHECKING:
    from zchunked.serve.app import Access

# without a request, until a collection beside the server may take what it has served
_REST_SECONDS = 1.0


def serve(command: Command) -> int:
    """Serve until stopped; with `--config-for` only print what to write where."""
    from zchunked.serve.config_for import Engine, config_for  # noqa: PLC0415 - an extra
    from zchunked.serve.settings import parse_listen  # noqa: PLC0415

    own = command.own
    listen = parse_listen(own["listen"])
    if own["config_for"]:
        host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
        engine = cast("Engine", own["config_for"])
        print(config_for(engine, f"{host}:{listen[1]}", is_tls=bool(own["tls_cert"])), end="")
        return 0
    return _run(command, listen)


def _run(command: Command, listen: tuple[str, int]) -> int:
    try:
        from zchunked.serve import arguments  # noqa: PLC0415
        from zchunked.serve.names import parse_upstreams  # noqa: PLC0415
        from zchunked.serve.run import run  # noqa: PLC0415
        from zchunked.serve.settings import Settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise LocalError(f"zpull serve needs {error.name}: pip install 'zpull[serve]'") from error
    own, output = command.own, command.output
    settings = Settings(
        listen,
        arguments.certificate_of(own["tls_cert"], own["tls_key"]),
        own["insecure_listen"],
        arguments.allowed_of(own["allow"], command.environment, command.connection.registries_conf),
        parse_upstreams(own["upstream"]),
        arguments.clients_of(own["token"]),
        own["stale"],
        own["prefetch"],
        command.options.offline,
        rest_seconds=_REST_SECONDS,
        store_max=budget_of(command),
    )

    def access(one: Access) -> None:
        if not output.is_quiet:
            with suppress(OSError, ValueError):
                print(msgspec.json.encode(one).decode(), file=sys.stderr, flush=True)

    def log(text: str) -> None:
        if output.is_verbose:
            with suppress(OSError, ValueError):
                print(f"zpull: {text}", file=sys.stderr)

    with open_store(command.store) as store:
        context = context_of(command, store, lambda _: None)
        run(settings, context, access=access, log=log, tell=_tell)
    return 0


def _tell(text: str) -> None:
    print(f"zpull: {text}", file=sys.stderr, flush=True)
