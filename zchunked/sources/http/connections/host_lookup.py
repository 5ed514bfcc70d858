"""Look host names up in bounded time: the system's own way has no limit and may take a minute."""

from __future__ import annotations

import ipaddress
import socket
import threading
from contextlib import suppress


class ResolverTimeoutError(OSError):
    """No name server answered in time. Unlike a timeout: there was no connection."""


def addresses_of(name: str, seconds: float) -> list[str]:
    """Addresses of a host name, best first, none twice.

    Raises socket.gaierror, or UnicodeError for what cannot be a name, as the system does;
    ResolverTimeoutError after `seconds`. The system goes on looking then, in an abandoned
    thread. Where it allows no more threads there is no limit.
    """
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return [name]
    found: list[str] = []
    failure: list[Exception] = []

    def look() -> None:
        try:
            answers = socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)
            found.extend(dict.fromkeys([str(answer[4][0]) for answer in answers]))
        except (OSError, UnicodeError) as error:
            failure.append(error)

    thread = threading.Thread(target=look, name="zpull-name", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        look()
    else:
        thread.join(seconds)
        if thread.is_alive():
            raise ResolverTimeoutError(f"no answer for {seconds:g} s")
    if failure:
        raise failure[0]
    return found
