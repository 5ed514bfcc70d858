"""A threading HTTP/1.1 server on loopback whose connections can be cut from outside."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.servers.wire import ConnectionCutError, hang_up


class LoopbackServer(ThreadingHTTPServer):
    """Runs in a thread of its own from the moment it is made.

    `greet` hears of every connection and `serve` of every request, in the connection's thread;
    either may raise ConnectionCutError or OSError to end it.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, greet: Callable[[], None], serve: Callable[[BaseHTTPRequestHandler], None], port: int
    ) -> None:
        self.greet = greet
        self.serve = serve
        self.errors: list[BaseException] = []
        """What went wrong here, not at a client."""
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.01,), name="loopback", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close every connection; returns when their threads are done with them."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=2)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""
        found = sys.exc_info()[1]
        if found and not isinstance(found, OSError):
            self.errors.append(found)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackServer

    def handle(self) -> None:
        """All requests of a connection."""
        try:
            self.server.greet()
            super().handle()
        except ConnectionCutError as cut:
            if cut.hard:
                hang_up(self.connection)

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.serve(self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """The accounts say it better."""
