"""`zpull serve`: a registry on loopback that every engine of this machine can pull through."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from zchunked.cli.commands.pull import SILENCE_SECONDS, bearable
from zchunked.cli.render import store_of
from zchunked.errors import LocalError, UsageError
from zchunked.interfaces import Source
from zchunked.oci.documents import Platform
from zchunked.oci.reference import Reference
from zchunked.options import Options, Patience
from zchunked.serve.names import parse_upstreams
from zchunked.serve.policy import DEFAULT_HOSTS, Allowed, Clients
from zchunked.serve.settings import Settings, parse_listen
from zchunked.sources import open_source
from zchunked.sources.config.registries_files import registries_from
from zchunked.sources.config.small_files import contents_of
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic


def serve(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Serve until a person or the system ends it; with `--config-for` only print what to write where."""
    from zchunked.serve.config_for import Engine, config_for  # noqa: PLC0415 - an extra

    listen = parse_listen(arguments.listen)
    if arguments.config_for:
        host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
        engine = cast("Engine", arguments.config_for)
        print(config_for(engine, f"{host}:{listen[1]}", is_tls=bool(arguments.tls_cert)), end="")
        return 0
    return _run(arguments, environment, listen)


def _settings(arguments: argparse.Namespace, environment: Mapping[str, str], listen: tuple[str, int]) -> Settings:
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise UsageError("--tls-cert and --tls-key belong together")
    conf = Path(arguments.registries_conf) if arguments.registries_conf else None
    known = list(registries_from(environment, told=conf))
    token = contents_of(Path(arguments.token), "token") if arguments.token else None
    if arguments.token and token is None:
        raise UsageError(f"--token {arguments.token}: there is no such file")
    return Settings(
        listen,
        (Path(arguments.tls_cert), Path(arguments.tls_key)) if arguments.tls_cert else None,
        arguments.insecure_listen,
        Allowed.of(arguments.allow or [*DEFAULT_HOSTS, *(name for name in known if "*" not in name)]),
        parse_upstreams(arguments.upstream),
        Clients.of(None if token is None else token.decode("ascii", "replace")),
        arguments.stale,
        arguments.prefetch == "true",
        arguments.offline,
    )


def _run(arguments: argparse.Namespace, environment: Mapping[str, str], listen: tuple[str, int]) -> int:
    try:
        from zchunked.serve.app import Access  # noqa: PLC0415
        from zchunked.serve.server import notify  # noqa: PLC0415
        from zchunked.serve.wiring import serving  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise LocalError(f"zpull serve needs {error.name}: pip install 'zpull[serve]'") from error
    settings = _settings(arguments, environment, listen)
    options = Options(Platform("", ""), arguments.jobs, Patience(arguments.patience, arguments.retry))

    def access(one: Access) -> None:
        if not arguments.quiet:
            with suppress(OSError, ValueError):
                print(msgspec.json.encode(one).decode(), file=sys.stderr, flush=True)

    def log(text: str) -> None:
        if arguments.verbose:
            with suppress(OSError, ValueError):
                print(f"zpull: {text}", file=sys.stderr)

    with store_of(arguments) as store:

        def opened(reference: Reference, traffic: Traffic) -> Source:
            if arguments.offline:
                return OfflineSource(str(reference))
            return open_source(
                reference,
                environment=environment,
                traffic=traffic,
                hosts=store,
                connect_seconds=min(bearable(arguments.stall_timeout, arguments.patience), SILENCE_SECONDS),
                stall_seconds=bearable(arguments.stall_timeout, arguments.patience),
                tls_verify=arguments.tls_verify == "true",
                cert_dir=arguments.cert_dir,
                authfile=arguments.authfile,
                registries_conf=arguments.registries_conf,
                documents=store.document,
            )

        socket = environment.get("NOTIFY_SOCKET")
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
