"""Map exceptions of sockets, TLS and HTTP to our errors. Pure."""

from __future__ import annotations

import re
import ssl
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from socket import EAI_NODATA, EAI_NONAME, gaierror
from typing import TypeVar

from zchunked.errors import AccessDeniedError, PermanentError, TransientError, ZPullError
from zchunked.sources.http.connections.host_lookup import ResolverTimeoutError

_NOT_TLS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    }
)
_NO_AGREEMENT = ("ALERT", "UNSUPPORTED", "NO_PROTOCOLS")
_HUNG_UP = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, RemoteDisconnected)
_UNTRUSTED_HINT = (
    "--cert-dir DIR names a CA of your own, --tls-verify=false accepts any certificate"
)
_OUT_OF_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_CLOCK_HINT = "is the clock of this machine right? --tls-verify=false accepts any certificate"
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_FINAL_OF_PROXY = frozenset({"400", "401", "403", "405"})
_Kind = TypeVar("_Kind", bound=BaseException)


class NoAnswerError(TransientError):
    """The host hung up before it answered, or could not be reached at all."""


class UnreachableError(NoAnswerError):
    """No connection to the host, so nothing was asked of it."""


class HostTimeoutError(TransientError):
    """No byte arrived within the time limit."""


class ConnectionTimedOutError(HostTimeoutError):
    """Not even a connection was made in time, so nothing was requested."""


class CannotConnectError(PermanentError):
    """No connection to the host is possible, so nothing was requested."""


class NoTlsError(CannotConnectError):
    """Whatever listens there speaks no TLS, or none that we could agree on."""


class MalformedHeadError(HTTPException):
    """A response's head arrived and is not HTTP. The text is the library's name for the fault."""


def causes_of(error: BaseException) -> list[BaseException]:
    """The exception and its causes, outermost first. Libraries attach them in different places."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and not isinstance(one, ZPullError) and one not in found:
            found.append(one)
            todo += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]
    return found


def translated(  # noqa: C901 - a table, in the form of ifs
    causes: list[BaseException],
    host: str,
    *,
    seconds: float,
    received: int | None,
    is_connecting: bool,
    is_proxy: bool,
) -> ZPullError:
    """Our error for what went wrong with `host`.

    `seconds` is how long we waited for a byte; `received` counts body bytes, None before the
    answer's head.
    """
    at = "" if received is None else f" after {received} body bytes"
    unreachable, no_answer = (
        (UnreachableError, NoAnswerError) if received is None else (TransientError, TransientError)
    )
    if final := _final(causes, host, is_proxy=is_proxy):
        return final
    if mute := _first(causes, ResolverTimeoutError):
        return ConnectionTimedOutError(
            f"{host}: the name cannot be resolved (the name server gives {mute})"
        )
    if name := _first(causes, gaierror):
        return unreachable(f"{host}: the name cannot be resolved ({name.strerror})")
    if _first(causes, TimeoutError):
        if is_connecting:
            return ConnectionTimedOutError(f"{host}: no connection in time")
        return HostTimeoutError(f"{host}: no byte for {seconds:g} s{at}")
    if is_proxy:
        return unreachable(f"{host}: the proxy refuses the connection ({str(causes[-1])[:100]!r})")
    if received is None and (tls := _first(causes, ssl.SSLError)):
        reason = getattr(tls, "reason", None) or ""
        if reason in _NOT_TLS:
            return NoTlsError(f"{host}: speaks no TLS ({reason}); --plain-http, if that is meant")
        if any(word in reason for word in _NO_AGREEMENT):
            return NoTlsError(f"{host}: no TLS version or cipher in common ({reason})")
        return unreachable(
            f"{host}: the TLS connection broke ({reason or 'closed by the other side'})"
        )
    if _first(causes, ConnectionRefusedError):
        return unreachable(f"{host}: connection refused")
    if _first(causes, *_HUNG_UP):
        return no_answer(
            f"{host}: "
            + ("hung up without an answer" if received is None else f"broke the connection{at}")
        )
    if cut := _first(causes, IncompleteRead):
        missing = f", {cut.expected} are missing" if cut.expected else ""
        return TransientError(f"{host}: ended the body early{at}{missing}")
    kind = unreachable if is_connecting else no_answer
    return kind(f"{host}: the exchange failed{at} ({_detail(causes[-1])})")


def _final(causes: list[BaseException], host: str, *, is_proxy: bool) -> ZPullError | None:
    """What no waiting mends, whenever it happens."""
    if cert := _first(causes, ssl.SSLCertVerificationError):
        hint = _CLOCK_HINT if getattr(cert, "verify_code", 0) in _OUT_OF_TIME else _UNTRUSTED_HINT
        return CannotConnectError(
            f"{host}: its TLS certificate is not trusted ({_detail(cert)}); {hint}"
        )
    if odd := _first(causes, MalformedHeadError):
        return PermanentError(f"{host}: malformed answer ({odd}); expected an HTTP server")
    if _first(causes, UnicodeError):
        return CannotConnectError(f"{host}: no host can have this name")
    name = _first(causes, gaierror)
    if name is not None and name.errno in (EAI_NONAME, EAI_NODATA):
        whose = "the proxy's name" if is_proxy else "the name"
        return CannotConnectError(f"{host}: {whose} does not exist ({name.strerror})")
    tunnel = _TUNNEL.search(" ".join(map(str, causes))) if is_proxy else None
    if tunnel and tunnel[1] == "407":
        return AccessDeniedError(
            f"{host}: 407 from the proxy: it refuses the credentials in HTTPS_PROXY, or wants some"
        )
    if tunnel and tunnel[1] in _FINAL_OF_PROXY:
        return CannotConnectError(
            f"{host}: the proxy refuses to connect to it (status {tunnel[1]})"
        )
    return None


def _detail(error: BaseException) -> str:
    """The error's fixed words alone: a text may hold what the peer sent, or a URL."""
    return (
        getattr(error, "verify_message", None)
        or getattr(error, "strerror", None)
        or type(error).__name__
    )


def _first(causes: list[BaseException], *kinds: type[_Kind]) -> _Kind | None:
    return next((one for one in causes if isinstance(one, kinds)), None)
