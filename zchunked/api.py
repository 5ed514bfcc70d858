"""`zchunked.pull` and `zchunked.plan`: a whole job in one function call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from zchunked.client import Client
from zchunked.events import Event
from zchunked.oci.platform import Platform
from zchunked.options import Connection, Options
from zchunked.results import Plan, PullResult


def pull(
    image: str,
    *,
    to: str | Sequence[str] = (),
    store: str | os.PathLike[str] | None = None,
    platform: str | Platform | None = None,
    force: bool = False,
    options: Options | None = None,
    connection: Connection | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> PullResult:
    """Pull an image: download what is missing, prove it, write it to `to`, as `Client.pull` does.

    Args, returns and raises as `Client` and `Client.pull` have them.

    Example:
        >>> import zchunked
        >>> zchunked.pull("oci:demo:demo-v1", to="oci:app", store="store").manifest_digest[:7]
        'sha256:'
    """
    with Client(store, options=options, connection=connection, on_event=on_event) as client:
        return client.pull(image, to=to, platform=platform, force=force)


def plan(
    image: str,
    *,
    store: str | os.PathLike[str] | None = None,
    platform: str | Platform | None = None,
    options: Options | None = None,
    connection: Connection | None = None,
) -> Plan:
    """Say what a pull would cost: `Client.plan` in one call.

    Args, returns and raises as `Client` and `Client.plan` have them.

    Example:
        >>> import zchunked
        >>> zchunked.plan("oci:demo:demo-v1", store="empty").estimate.bytes
        0
    """
    with Client(store, options=options, connection=connection) as client:
        return client.plan(image, platform=platform)
