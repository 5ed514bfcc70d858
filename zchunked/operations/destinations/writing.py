"""Write a stored image to one destination: a layout or archive, or an engine of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zchunked.errors import DamagedLayerError, ZPullError
from zchunked.events import Noted, Pulled, Warned
from zchunked.export.destination import Destination
from zchunked.receipt import Receipt

if TYPE_CHECKING:  # loaded while engines answer
    from zchunked.export.engines.engine_commands import Engine
    from zchunked.export.images.tee import ExportTee
    from zchunked.operations.context import Context
    from zchunked.pull.partial_blobs import PartialBlobs
    from zchunked.pull.pull import Pull
    from zchunked.serve.engine_transfer import Handover
    from zchunked.store.images import StoredImage


@dataclass(frozen=True, slots=True)
class EngineDestination:
    """An engine that was asked whether it is there.

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


def check_engines(to: Sequence[AnyDestination]) -> None:
    """Wait until all engines have answered. LocalError where one does not."""
    for one in to:
        if isinstance(one, EngineDestination):
            one.engine.check()


class Outlets:
    """The destinations of one image. Those that can take its blobs while it is pulled. Close it."""

    def __init__(self, context: Context, image: str, to: Sequence[AnyDestination]) -> None:
        """`image`: as it is pulled.

        Raises LocalError where an engine does not answer, or has no name for it.
        """
        self._context, self._to = context, to
        engines = [one.engine for one in to if isinstance(one, EngineDestination) and not one.load]
        self.takes_blobs = bool(engines)
        """Whether an engine is given the registry's own blobs, and only those that it lacks."""
        if engines:
            import zchunked.serve.engine_transfer  # noqa: PLC0415, F401 - 45 ms, in which they answer
        check_engines(to)
        self._handover = _handover_of(context, image, engines)
        self._tee = _tee_of(to)

    def start(self) -> None:
        """Before the source is opened. Raises LocalError where nothing can be served."""
        if self._handover is not None:
            self._handover.start()

    @contextmanager
    def following(self, partial_blobs: PartialBlobs) -> Iterator[None]:
        """After `start`: take blobs as they are proved, while the pull runs in the block."""
        handover = self._handover
        if self._tee is not None:
            partial_blobs.copying = self._tee.copying
        if handover is None:
            yield
            return
        handover.follow(partial_blobs)
        try:
            yield
        except ZPullError as failure:
            handover.pulled(failure)
            handover.close()
            raise
        handover.pulled(None)

    def write(
        self, image: StoredImage, receipt: Receipt, pull: Pull, *, force: bool
    ) -> StoredImage:
        """Write the stored image to all; returns it. What the disk damaged is pulled again, once.

        `pull`: that has brought the image.
        """
        is_repaired = False
        for to in self._to:
            try:
                self._write(image, to, receipt, force=force)
            except DamagedLayerError as damage:
                if is_repaired:
                    raise
                self._context.show(Noted(f"{damage}; doing that now"))
                image, is_repaired = pull.repair(image), True
                self._context.show(Pulled(image.documents.manifest_digest))
                if to.is_stream:
                    raise DamagedLayerError(
                        f"the archive at {to.text} is broken, for layers were damaged in "
                        f"the store ({damage}); they are repaired now: run the same command again"
                    ) from damage
                self._write(image, to, receipt, force=force)
        return image

    def _write(
        self, image: StoredImage, to: AnyDestination, receipt: Receipt, *, force: bool
    ) -> None:
        write(
            self._context,
            image,
            to,
            receipt,
            force=force,
            handover=self._handover,
            tee=self._tee,
        )

    def close(self) -> None:
        """May be called twice."""
        if self._handover is not None:
            self._handover.close()
        if self._tee is not None:
            self._tee.stage.drop()  # of a pull that failed


def _handover_of(context: Context, image: str, engines: Sequence[Engine]) -> Handover | None:
    """A handover of the image to engines during the pull; None where none of them can."""
    engines = [engine for engine in engines if not engine.is_remote]
    if not engines:
        return None
    from zchunked.serve.engine_transfer import Handover  # noqa: PLC0415 - an extra

    return Handover(context.store, image, engines)


def _tee_of(to: Sequence[AnyDestination]) -> ExportTee | None:
    """A tee that writes blobs of new layouts during the pull; None without any."""
    layouts = [one for one in to if not isinstance(one, EngineDestination)]
    if not layouts:
        return None
    from zchunked.export.images.tee import tee_of  # noqa: PLC0415 - engines take no files

    return next((tee for tee in map(tee_of, layouts) if tee is not None), None)


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
