"""Parse and check destinations before anything is opened or requested."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from zchunked.errors import LocalError, UsageError
from zchunked.oci.quoting import typed

if TYPE_CHECKING:
    from zchunked.operations.destinations.writing import AnyDestination

# ruff: noqa: PLC0415 - most pulls end in the store, and load nothing of what follows


def destinations_of(
    to: str | Sequence[str], *, force: bool, load: bool = False, images: int = 1
) -> list[AnyDestination]:
    """UsageError; LocalError for an occupied target, or an engine that is missing.

    Engines are asked whether they are there, and answer while the caller goes on.
    `images`: how many of them each destination gets.
    """
    destinations = [
        _destination(text, force=force, load=load, images=images)
        for text in ([to] if isinstance(to, str) else to)
    ]
    if sum(one.is_stdout for one in destinations) > 1:
        raise UsageError("only one --to can write to standard output")
    return destinations


def _destination(text: str, *, force: bool, load: bool, images: int) -> AnyDestination:
    from zchunked.export.check import check_target
    from zchunked.export.destination import parse_destination
    from zchunked.export.engines.engine_names import parse_engine
    from zchunked.operations.destinations.writing import EngineDestination

    target = parse_engine(text)
    if target is None:
        destination = parse_destination(text)
        if images > 1 and (destination.transport != "oci" or destination.tag is not None):
            raise UsageError(
                f"--to {typed(text)} holds one image, and there are several; use oci:DIR, or one "
                "call for each"
            )
        check_target(destination, force=force)
        return destination
    if images > 1 and target.name is not None:
        raise UsageError(
            f"--to {typed(text)} names one image, and there are several; leave the name out, or "
            "use one call for each"
        )
    if not load and find_spec("cheroot") is None:
        raise LocalError(
            f"--to {text} needs cheroot: pip install 'zpull[serve]', or stream an archive with "
            "--load"
        )
    from zchunked.export.engines.engine_commands import Engine  # loads subprocess

    return EngineDestination(Engine(target), load)
