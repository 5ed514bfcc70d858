"""The HTTP server around the application: sockets, TLS, limits, systemd. The only cheroot."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cheroot import wsgi
from cheroot.makefile import StreamReader
from cheroot.server import HTTPConnection
from cheroot.ssl.builtin import BuiltinSSLAdapter

from zchunked.download.workers import WorkerPool
from zchunked.errors import LocalError
from zchunked.serve.slow_clients import STALL_SECONDS, AnswerWriter, RequestSocket

THREADS = 160  # 50 engines with three layers each; a thread that waits costs 100 kB
_QUEUE = 512  # connections that wait to be accepted
_HEADER_BYTES = 48 << 10  # podman's longest list of ranges has 23 kB
_FAREWELL_SECONDS = 5
_LEAST_SECONDS = 2  # beyond that, for the library to notice that answers are cut off
_LOOK_SECONDS = 0.5


class Server:
    """Serves until stopped. `start` blocks; `stop` may be called from another thread."""

    def __init__(
        self,
        app: Callable[..., Any],
        address: tuple[str, int],
        *,
        certificate: tuple[Path, Path] | None,
        log: Callable[[str], None],
        threads: int = THREADS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        """`certificate`: files of certificate and key, for TLS. `log` takes client errors.

        `look_seconds`: until a `stop` is noticed.
        """
        self._server = wsgi.Server(
            address,
            app,
            numthreads=threads,
            request_queue_size=_QUEUE,
            timeout=STALL_SECONDS,
            shutdown_timeout=_FAREWELL_SECONDS,
        )
        self._server.max_request_header_size = _HEADER_BYTES
        self._server.max_request_body_size = _HEADER_BYTES  # a pull has no body
        self._server.expiration_interval = look_seconds
        self._server.server_name = "zpull"
        self._server.ConnectionClass = _Connection
        self._server.error_log = _Log(log)  # type: ignore[method-assign] # the way its documentation names
        if certificate is not None:
            self._server.ssl_adapter = _adapter(*certificate)

    def open(self) -> tuple[str, int]:
        """Listen; returns the address, of systemd's socket where there is one.

        Raises LocalError, for an address that is taken among others.
        """
        try:
            self._server.prepare()
        except OSError as error:
            host, port = self._server.bind_addr[:2]
            raise LocalError(
                f"cannot listen on {host}:{port}: {_why_not(host, port) or error}; choose another "
                "address or port with --listen"
            ) from error
        # Linux: who says nothing is not even accepted for a while
        with suppress(OSError, AttributeError):
            self._server.socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, STALL_SECONDS
            )
        address = self._server.socket.getsockname()
        if not isinstance(address, tuple):
            self._server.socket.close()
            self._server.socket = None  # `stop` expects a TCP socket
            raise LocalError("cannot serve on a unix socket: expected ListenStream=ADDRESS:PORT")
        return str(address[0]), int(address[1])

    def serve(self) -> None:
        """Until `stop`, or until an exception such as KeyboardInterrupt.

        A worker accepts: an interrupt of the main thread within the library's queue may lose the
        notice that wakes the last of its threads, and `stop` would wait for that one for ever.
        """
        with WorkerPool({"accept": 1}, threading.Event()) as pool:
            pool.submit("accept", self._server.serve)
            try:
                pool.wait(lambda: None, every=_LOOK_SECONDS)
            finally:
                self._stop_in_time()

    def _stop_in_time(self) -> None:
        """The library waits for a thread without a bound; the process ends without it as well."""
        end = time.monotonic() + _FAREWELL_SECONDS + _LEAST_SECONDS
        with WorkerPool({"stop": 1}, threading.Event()) as pool:
            pool.submit("stop", self.stop)
            pool.wait(lambda: None, until=lambda: time.monotonic() > end)

    def stop(self) -> None:
        """Answers that are being sent get a few seconds."""
        self._server.stop()


def _why_not(host: str, port: int) -> str | None:
    """The system's words, which the library wraps up; None where one can listen there by now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        number = error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror  # a name has no number
    return None


def _adapter(certificate: Path, key: Path) -> BuiltinSSLAdapter:
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise LocalError(f"cannot read {option} {path}: {error.strerror}") from error
        if b"ENCRYPTED" in text:  # OpenSSL would ask a terminal for the passphrase
            raise LocalError(f"invalid {option} {path}: expected a key without a passphrase")
    try:
        return BuiltinSSLAdapter(str(certificate), str(key))
    except OSError as error:  # of TLS: both files can be read
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise LocalError(
                f"--tls-key {key} is not the key of --tls-cert {certificate}"
            ) from error
        raise LocalError(
            f"invalid --tls-cert {certificate} or --tls-key {key}: expected a certificate and its "
            f"key in PEM form ({reason})"
        ) from error


class _Connection(HTTPConnection):
    """Drops a client whose request is late, or that reads its response too slowly."""

    def __init__(self, server: Any, sock: socket.socket, *makefile: Any) -> None:
        super().__init__(server, sock, *makefile)
        self._requests = RequestSocket(sock)
        self.rfile = _Reader(self._requests, self.rbufsize)
        threads = server.requests
        self.wfile = AnswerWriter(
            sock,
            lambda: not threads.idle and threads.qsize > 0,
            server.error_log,
            is_encrypted=server.ssl_adapter is not None,
        )

    def communicate(self) -> Any:
        self._requests.expect()
        return super().communicate()  # type: ignore[no-untyped-call]


class _Reader(StreamReader):
    def __init__(self, raw: socket.SocketIO, size: int) -> None:
        super(StreamReader, self).__init__(raw, size)  # which would make a plain SocketIO
        self.bytes_read = 0


class _Log:
    """Takes the library's messages on clients that left, and bodies that could not be finished."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def __call__(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: FBT001, FBT002
        text = str(msg).strip()
        if text:
            self._log(text.splitlines()[-1][:300])


def notify(path: str | None, state: str) -> None:
    """Tell systemd READY=1 or STOPPING=1 (sd_notify(3)). `path`: NOTIFY_SOCKET, or None."""
    if not path:
        return
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        channel.sendall(state.encode())
