"""Client call that serves the store to the engines of a machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from zchunked.errors import LocalError
from zchunked.operations.calls.sending import SendingCalls
from zchunked.options import ServeSettings
from zchunked.results import Access

if TYPE_CHECKING:
    from zchunked.serve.server import Server

# ruff: noqa: PLC0415 - what does the work is imported when it is asked for


class ServingCalls(SendingCalls):
    """The part of a client that this call lives in."""

    def serve(
        self,
        settings: ServeSettings | None = None,
        *,
        access: Callable[[Access], None] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Be a registry through which engines pull partially, until Ctrl-C or `close`.

        Another thread may call `close`. `on_event` gets a note with the address once it listens,
        and one when it is interrupted.

        Args:
            settings: Where to listen, whom to serve and what. None: the defaults.
            access: Takes each request that was answered, on several threads.
            log: Takes what went wrong with a client, on several threads.

        Raises:
            UsageError: A setting cannot be understood, or others would reach it unencrypted.
            LocalError: The address is taken, the store cannot be opened, or `zpull[serve]` is not
                installed.

        Example:
            >>> import zchunked
            >>> def stop(event):  # the first one says that it listens
            ...     client.close()
            >>> client = zchunked.Client("store", on_event=stop)
            >>> client.serve(zchunked.ServeSettings(listen="0"))
        """
        ending = _Ending()
        with self._lock:
            self._endings.append(ending.end)
        try:
            from zchunked.serve.arguments import settings_of
            from zchunked.serve.run import run
        except ModuleNotFoundError as error:
            raise LocalError(
                f"zpull serve needs {error.name}: pip install 'zpull[serve]'"
            ) from error
        given = settings or ServeSettings()
        wanted = settings_of(
            given, self.connection, self._environment, offline=self.options.offline
        )
        with self._fresh_store() as store:  # its own: `close` ends the server before it goes
            run(
                wanted,
                self._context_over(store),
                access=access or (lambda _: None),
                log=log or (lambda _: None),
                begun=ending.begin,
            )


class _Ending:
    """Ends a server, also one that does not listen yet. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._is_due = False

    def begin(self, server: Server) -> None:
        """The server listens from now on."""
        with self._lock:
            self._server, is_due = server, self._is_due
        if is_due:
            server.stop()

    def end(self) -> None:
        with self._lock:
            self._is_due, server = True, self._server
        if server is not None:
            server.stop()
