"""Settings wired for the verbs that the client has no call for yet: convert, push and serve."""

from __future__ import annotations

from zchunked.cli.settings import Settings
from zchunked.interfaces import Emit
from zchunked.operations.context import Context
from zchunked.store import Store


def context_of(settings: Settings, store: Store, show: Emit) -> Context:
    return Context(store, settings.options, settings.connection, settings.environment, show)
