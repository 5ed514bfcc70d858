"""Destinations as callers give them, checked before anything is opened or asked for."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.errors import UsageError
from zchunked.export import Destination, check_target, parse_destination


def destinations_of(to: str | Sequence[str], *, force: bool) -> list[Destination]:
    """Raises UsageError, and LocalError for a target that is in the way."""
    destinations = [parse_destination(text) for text in ([to] if isinstance(to, str) else to)]
    for destination in destinations:
        check_target(destination, force=force)
    if sum(one.is_stdout for one in destinations) > 1:
        raise UsageError("only one --to can write to standard output")
    return destinations
