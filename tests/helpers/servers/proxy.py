"""A proxy on loopback that opens tunnels (CONNECT), whatever the name asked for, to one server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_NO = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Proxy:
    """`asked` holds the heads of all requests."""

    host: str
    asked: list[bytes] = field(default_factory=list)


@contextmanager
def proxy(target: str, *, refuses: bool = False) -> Iterator[Proxy]:
    """Tunnels to `target`, host:port."""
    address, _, port = target.partition(":")

    def tunnel(client: socket.socket) -> None:
        with client, suppress(OSError):
            head = client.recv(65536)
            found.asked.append(head)
            if refuses or not head.startswith(b"CONNECT "):
                client.sendall(_NO)
                return
            with socket.create_connection((address, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                back.join()

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=tunnel, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Proxy(f"127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield found
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
