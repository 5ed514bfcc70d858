"""Pull images of one source whole, and write their layers anew as zstd:chunked, in the store."""

from __future__ import annotations

from dataclasses import replace

from zchunked.convert.image import Converter
from zchunked.convert.index import Choice, Converted
from zchunked.convert.layers import ConvertSettings
from zchunked.errors import DamagedLayerError
from zchunked.events import Noted, Pulled
from zchunked.oci.platform import Platform
from zchunked.operations.context import Context
from zchunked.operations.pulling import pull_of
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt

_NAMED = Choice(None, None, {})


class Conversion:
    """The images of one source, one after the other. For one thread, which also gets all events."""

    def __init__(
        self, context: Context, origin: Origin, how: ConvertSettings, notes: list[str]
    ) -> None:
        """`notes` grows by what a person should know of the images."""
        self._context, self._origin, self._how, self._notes = context, origin, how, notes
        self._pull: Pull | None = None
        self.receipt = Receipt(origin.name)
        """Of the image that was pulled last."""

    @property
    def bytes_here(self) -> int:
        """How much of the image that is being pulled is in the store."""
        return self._pull.bytes_here if self._pull is not None else 0

    def note(self, text: str) -> None:
        """Show it, and add it to `notes`."""
        self._notes.append(text)
        self._context.show(Noted(text))

    def image(self, platform: Platform, choice: Choice = _NAMED) -> Converted:
        """An image, before and after: for a platform, or the very one that an index listed."""
        context = self._context
        context = replace(context, options=replace(context.options, platform=platform))
        self.receipt = Receipt(self._origin.name)
        # An index may be replaced at the source meanwhile
        origin = replace(self._origin, digest=choice.digest or self._origin.digest)
        pull = self._pull = pull_of(context, origin, self.receipt)
        before = pull.run()
        context.show(Pulled(before.documents.manifest_digest))
        converter = Converter(context.store, self._how, context.show)
        try:
            after = converter.run(before)
        except DamagedLayerError as damage:
            self.note(f"{damage}; doing that now")
            before = pull.repair(before)
            after = Converter(context.store, self._how, context.show).run(before)
        was = before.documents.manifest.config.digest
        now = after.image.documents.manifest.config.digest
        if was != now:
            self.note(f"rewritten: other diff IDs, and image ID {now} instead of {was}")
        return Converted(before, after, choice)
