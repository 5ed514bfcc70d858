"""`zpull serve`: a registry on loopback that every engine of this machine can pull through."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from zchunked.cli.commands.wiring import context_of
from zchunked.cli.settings import Settings as Command
from zchunked.cli.stores import open_store
from zchunked.errors import LocalError, UsageError
from zchunked.oci.platform import Platform
from zchunked.oci.reference import Reference
from zchunked.options import Options
from zchunked.pull.origin import Origin
from zchunked.serve.names import parse_upstreams
from zchunked.serve.policy import DEFAULT_HOSTS, Allowed, Clients
from zchunked.serve.settings import Settings, parse_listen
from zchunked.sources.config.registries_files import registries_from
from zchunked.sources.config.small_files import contents_of
from zchunked.sources.traffic import RateLimit, Traffic


def serve(command: Command) -> int:
    """Serve until a person or the system ends it; with `--config-for` only print what to write where."""
    from zchunked.serve.config_for import Engine, config_for  # noqa: PLC0415 - an extra

    own = command.own
    listen = parse_listen(own["listen"])
    if own["config_for"]:
        host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
        engine = cast("Engine", own["config_for"])
        print(config_for(engine, f"{host}:{listen[1]}", is_tls=bool(own["tls_cert"])), end="")
        return 0
    return _run(command, listen)


def _settings(command: Command, listen: tuple[str, int]) -> Settings:
    own = command.own
    certificate, key, token_file = own["tls_cert"], own["tls_key"], own["token"]
    if bool(certificate) != bool(key):
        raise UsageError("--tls-cert and --tls-key belong together")
    known = list(registries_from(command.environment, told=command.connection.registries_conf))
    token = contents_of(Path(token_file), "token") if token_file else None
    if token_file and token is None:
        raise UsageError(f"--token {token_file}: there is no such file")
    return Settings(
        listen,
        (Path(certificate), Path(key)) if certificate else None,
        own["insecure_listen"],
        Allowed.of(own["allow"] or [*DEFAULT_HOSTS, *(name for name in known if "*" not in name)]),
        parse_upstreams(own["upstream"]),
        Clients.of(None if token is None else token.decode("ascii", "replace")),
        own["stale"],
        own["prefetch"],
        command.options.offline,
    )


def _run(command: Command, listen: tuple[str, int]) -> int:
    try:
        from zchunked.serve.app import Access  # noqa: PLC0415
        from zchunked.serve.server import notify  # noqa: PLC0415
        from zchunked.serve.wiring import serving  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise LocalError(f"zpull serve needs {error.name}: pip install 'zpull[serve]'") from error
    settings = _settings(command, listen)
    options = Options(Platform("", ""), command.options.jobs, command.options.patience)

    def access(one: Access) -> None:
        if not command.output.is_quiet:
            with suppress(OSError, ValueError):
                print(msgspec.json.encode(one).decode(), file=sys.stderr, flush=True)

    def log(text: str) -> None:
        if command.output.is_verbose:
            with suppress(OSError, ValueError):
                print(f"zpull: {text}", file=sys.stderr)

    with open_store(command.store) as store:
        rate = command.options.limit_rate  # one bucket for all that is fetched
        limit = RateLimit(rate, clock=time.monotonic, wait=threading.Event().wait) if rate else None

        context = context_of(command, store, lambda _: None)

        def opened(reference: Reference) -> Origin:
            return context.open(reference, Traffic(time.monotonic, limit=limit))

        socket = command.environment.get("NOTIFY_SOCKET")
        with serving(settings, store, opened, options, access=access, log=log) as server:
            host, port = server.open()
            scheme = "https" if settings.certificate else "http"
            shown = f"[{host}]" if ":" in host else host
            print(f"zpull: serving {scheme}://{shown}:{port} from {store.folder}", file=sys.stderr, flush=True)
            notify(socket, "READY=1")
            try:
                server.serve()
            except KeyboardInterrupt:
                print(f"zpull: stopping at {time.strftime('%H:%M:%S')}", file=sys.stderr, flush=True)
            finally:
                notify(socket, "STOPPING=1")
    return 0
