"""Pull images of one source whole, and write their layers anew as zstd:chunked, in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from zchunked.convert.image import Converter
from zchunked.convert.index import Converted, entry_of
from zchunked.convert.layers import ConvertSettings
from zchunked.events import Pulled
from zchunked.export.layers import DamagedLayerError
from zchunked.oci.platform import Platform
from zchunked.operations.context import Context
from zchunked.operations.pulling import pull_of
from zchunked.pull.objects.fetcher import ObjectFetcher
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt


class Conversion:
    """The images of one source, one after the other. For one thread, which also gets all events."""

    def __init__(
        self, context: Context, origin: Origin, how: ConvertSettings, note: Callable[[str], None]
    ) -> None:
        """`note` takes what a person should know of an image."""
        self._context, self._origin, self._how, self._note = context, origin, how, note
        self._pull: Pull | None = None
        self.receipt = Receipt(origin.name)
        """Of the image that was pulled last."""

    @property
    def bytes_here(self) -> int:
        """How much of the image that is being pulled is in the store."""
        return self._pull.bytes_here if self._pull is not None else 0

    def root(self) -> bytes:
        """What the source's reference names, as it is served."""
        context = self._context
        with ObjectFetcher(self._origin, context.store, context.options, context.show) as objects:
            return objects.manifest(None)

    def image(self, platform: Platform, root: bytes = b"{}") -> Converted:
        """The image for a platform, before and after. `root`: the index that lists it."""
        context = self._context
        context = replace(context, options=replace(context.options, platform=platform))
        self.receipt = Receipt(self._origin.name)
        pull = self._pull = pull_of(context, self._origin, self.receipt)
        before = pull.run()
        context.show(Pulled(before.documents.manifest_digest))
        converter = Converter(context.store, self._how, context.show)
        try:
            after = converter.run(before)
        except DamagedLayerError as damage:
            self._note(f"{damage}; doing that now")
            before = pull.repair(before)
            after = Converter(context.store, self._how, context.show).run(before)
        was = before.documents.manifest.config.digest
        now = after.image.documents.manifest.config.digest
        if was != now:
            self._note(f"rewritten: other diff IDs, and image ID {now} instead of {was}")
        return Converted(before, after, entry_of(root, before))
