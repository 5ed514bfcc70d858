"""Write a stored image to one destination: a layout or archive, or an engine of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zchunked.events import Noted, Warned
from zchunked.export.destination import Destination
from zchunked.export.images.tee import ExportTee, tee_of
from zchunked.operations.context import Context
from zchunked.receipt import Receipt
from zchunked.store.images import StoredImage

if TYPE_CHECKING:
    from zchunked.export.engines.engine_commands import Engine
    from zchunked.serve.engine_transfer import Handover


@dataclass(frozen=True, slots=True)
class EngineDestination:
    """An engine that answered.

    `load`: stream an archive into it, even where it could pull from here.
    """

    engine: Engine
    load: bool = False

    @property
    def text(self) -> str:
        return self.engine.target.text

    @property
    def is_stdout(self) -> bool:
        return False

    @property
    def is_stream(self) -> bool:
        """Whether what was written there cannot be taken back."""
        return False


AnyDestination = Destination | EngineDestination


def handover_of(context: Context, image: str, to: Sequence[AnyDestination]) -> Handover | None:
    """A handover of the image to engines during the pull; None where none of them can. Close it."""
    engines = [one.engine for one in to if isinstance(one, EngineDestination) and not one.load]
    engines = [engine for engine in engines if not engine.is_remote]
    if not engines:
        return None
    from zchunked.serve.engine_transfer import Handover  # noqa: PLC0415 - an extra

    return Handover(context.store, image, engines)


def tee_for(to: Sequence[AnyDestination]) -> ExportTee | None:
    """A tee that writes blobs of new layouts during the pull; None without any. Drop its stage."""
    tees = (tee_of(one) for one in to if not isinstance(one, EngineDestination))
    return next((tee for tee in tees if tee is not None), None)


def write(
    context: Context,
    image: StoredImage,
    to: AnyDestination,
    receipt: Receipt,
    *,
    force: bool,
    handover: Handover | None = None,
    tee: ExportTee | None = None,
) -> None:
    """Write the image, and note it on the receipt; warn of a manifest of our own."""
    if isinstance(to, EngineDestination):
        from zchunked.serve.engine_transfer import deliver  # noqa: PLC0415 - an extra

        done = handover.result(to.engine) if handover is not None else None
        if done is None:
            done = deliver(context.store, image, to.engine, load=to.load)
    else:
        from zchunked.export.write import export  # noqa: PLC0415 - most pulls end in the store

        done = export(
            context.store,
            image,
            to,
            stage=tee.stage if tee is not None else None,
            force=force,
            report=lambda text: context.show(Noted(text)),
        )
    if warning := receipt.exported(done):
        context.show(Warned(warning))
