"""ZPULL_STORE_MAX: how much the store may weigh, for gc, and after commands that pull images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.render import print_warning, warn
from zchunked.cli.words import values
from zchunked.errors import LocalError, UsageError

_VARIABLE = "ZPULL_STORE_MAX"


def budget_of(settings: Settings) -> int | None:
    """The store's budget in bytes; None where none is set."""
    text = settings.environment.get(_VARIABLE, "")
    try:
        return values.size(text) if text else None
    except ValueError as error:
        raise UsageError(f"invalid {_VARIABLE}: expected {error}, got {text!r:.80}") from None


@contextmanager
def within_budget(settings: Settings) -> Iterator[None]:
    """Around a command that closes its store: collect older images afterwards, unless it failed."""
    most, began = budget_of(settings), time.time()
    yield
    if most is not None and not settings.is_plan:
        try:
            client_of(settings, warn).keep_within(most, since=began)
        except LocalError as error:
            print_warning(f"the store could not be brought below {_VARIABLE}: {error}")
