"""Run the server until it is interrupted: open the upstreams, listen, tell systemd."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from zchunked.events import Noted
from zchunked.oci.platform import Platform
from zchunked.operations.context import Context, limit_of
from zchunked.options import Options
from zchunked.serve.app import AccessLog
from zchunked.serve.server import Server, notify
from zchunked.serve.settings import Settings
from zchunked.serve.wiring import serving


def run(
    settings: Settings,
    context: Context,
    *,
    access: AccessLog,
    log: Callable[[str], None],
    begun: Callable[[Server], None],
) -> None:
    """Serve until an interrupt, or until the server is stopped; one `limit_rate` holds for all.

    Where it listens, and that it stops, is shown as notes.

    Args:
        settings: how to serve.
        context: the store, and how upstreams are reached.
        access: takes each request that was answered.
        log: takes what went wrong with a client.
        begun: takes the server once it listens.

    Raises UsageError for an address that others reach unencrypted, LocalError for one that is
    taken.
    """
    context = replace(context, limit=limit_of(context.options))
    options = Options(Platform("", ""), context.options.jobs, context.options.patience)
    socket = context.environment.get("NOTIFY_SOCKET")
    with serving(settings, context.store, context.open, options, access=access, log=log) as server:
        host, port = server.open()
        settings = replace(settings, listen=(host, port))  # systemd may have chosen another one
        settings.check()
        scheme = "https" if settings.certificate else "http"
        shown = f"[{host}]" if ":" in host else host
        begun(server)
        context.show(Noted(f"serving {scheme}://{shown}:{port} from {context.store.folder}"))
        if settings.is_exposed:
            who = f"everyone who reaches {shown}:{port}"
            context.show(Noted(f"{who} can pull with your credentials, and read along"))
        notify(socket, "READY=1")
        try:
            server.serve()
        except KeyboardInterrupt:
            context.show(Noted(f"stopping at {time.strftime('%H:%M:%S')}"))
        finally:
            notify(socket, "STOPPING=1")
