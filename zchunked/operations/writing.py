"""Write a stored image to one destination: a layout or archive, or an engine of this machine."""

from __future__ import annotations

from dataclasses import dataclass

from zchunked.events import Noted, Warned
from zchunked.export import Destination, export
from zchunked.export.engines import Engine
from zchunked.operations.context import Context
from zchunked.receipt import Receipt
from zchunked.store.images import StoredImage


@dataclass(frozen=True, slots=True)
class EngineDestination:
    """An engine that was found to answer. `load`: stream an archive into it, even where it could pull from here."""

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


def write(context: Context, image: StoredImage, to: AnyDestination, receipt: Receipt, *, force: bool) -> None:
    """Put it on the receipt as well; a manifest that is not the registry's is warned of. Raises as `export` does."""
    if isinstance(to, EngineDestination):
        from zchunked.serve.transfer import deliver  # noqa: PLC0415 - an extra

        done = deliver(context.store, image, to.engine, load=to.load)
    else:
        done = export(context.store, image, to, force=force, tell=lambda text: context.show(Noted(text)))
    if warning := receipt.exported(done):
        context.show(Warned(warning))
