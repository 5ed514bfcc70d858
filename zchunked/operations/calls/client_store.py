"""Open a client's store at its first use, with what every call needs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zchunked.errors import LocalError
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
        self._endings: list[Callable[[], None]] = []  # of what runs until the client is closed
        self._has_noted = False  # what the store's file system lacks

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
            endings, self._endings = self._endings, []
        for end in endings:
            end()
        if opened is not None:
            opened.close()

    def _place(self) -> Path:
        """The store's folder. Raises as `default_store`."""
        if self._folder is None:
            self._folder = default_store()
        return self._folder

    def _store(self) -> Store:
        with self._lock:
            if self._opened is None:
                self._opened = self._fresh_store()
            return self._opened

    def _fresh_store(self) -> Store:
        """One that sees what other processes have done until now. The caller closes it."""
        from zchunked.store import Store

        store = Store(self._place())
        if store.note and not self._has_noted:
            self._has_noted = True
            self._on_event(Warned(store.note))
        return store

    def _read_only_store(self) -> Store:
        """Makes nothing and waits for no other process. The caller closes it."""
        from zchunked.store import Store

        return Store(self._place(), reads_only=True)

    @property
    def _environment(self) -> Mapping[str, str]:
        environment = self.connection.environment
        return os.environ if environment is None else environment

    def _context(self, platform: str | Platform | None) -> Context:
        chosen = platform_of(platform)
        context = self._context_over(self._store())
        if chosen is None:
            return context
        return replace(context, options=replace(self.options, platform=chosen))

    def _context_over(self, store: Store) -> Context:
        from zchunked.operations.context import Context

        return Context(store, self.options, self.connection, self._environment, self._on_event)


def default_store() -> Path:
    """The default store folder. LocalError where the user has no home, as an arbitrary uid."""
    import platformdirs

    with suppress(RuntimeError):  # newer versions raise it; older ones return `~`
        folder = Path(platformdirs.user_cache_dir("zpull"))
        if folder.is_absolute():
            return folder
    raise LocalError(
        "nowhere to keep downloaded bytes: there is no HOME, and no home in the passwd file; "
        "name a folder with --store DIR, or set ZPULL_STORE or HOME"
    )
