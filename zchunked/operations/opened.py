"""A client's store, opened at its first use, and what every call of the client needs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zchunked.events import Event, Warned
from zchunked.oci.platform import Platform, platform_of
from zchunked.options import Connection, Options

if TYPE_CHECKING:
    from zchunked.operations.context import Context
    from zchunked.store import Store

# ruff: noqa: PLC0415 - `import zchunked` is quick, so what does the work is imported when it is
# asked for


class OpenedStore:
    """What `Client` inherits; its arguments are described there."""

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        *,
        options: Options | None = None,
        connection: Connection | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._folder = Path(store) if store is not None else None
        self.options = options or Options()
        self.connection = connection or Connection()
        self._on_event = on_event or (lambda _: None)
        self._lock = threading.Lock()
        self._opened: Store | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store. May be called twice; a later call of the client opens it again."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _store(self) -> Store:
        from zchunked.operations.context import default_store
        from zchunked.store import Store

        with self._lock:
            if self._opened is None:
                self._opened = Store(self._folder or default_store())
                if self._opened.note:
                    self._on_event(Warned(self._opened.note))
            return self._opened

    def _read_only_store(self) -> Store:
        """Makes nothing and waits for no other process. The caller closes it."""
        from zchunked.operations.context import default_store
        from zchunked.store import Store

        return Store(self._folder or default_store(), reads_only=True)

    def _context(self, platform: str | Platform | None) -> Context:
        from zchunked.operations.context import Context

        chosen = platform_of(platform)
        options = self.options if chosen is None else replace(self.options, platform=chosen)
        environment = self.connection.environment
        return Context(
            self._store(),
            options,
            self.connection,
            os.environ if environment is None else environment,
            self._on_event,
        )
