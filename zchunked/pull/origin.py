"""Where an image or object is pulled from: reference, opened source, counted traffic."""

from __future__ import annotations

from dataclasses import dataclass

from zchunked.interfaces import Files, Source
from zchunked.oci.digest import Digest
from zchunked.oci.reference import ImageReference, LayoutReference
from zchunked.sources.blob_urls import place_in_layout
from zchunked.sources.layout import LayoutSource
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Origin:
    """An opened source, closed by its opener. `traffic` counts what is received from it.

    `digest`: what to pull instead of what the reference names.
    """

    reference: ImageReference
    source: Source
    traffic: Traffic
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """What the store and messages call the image."""
        return str(self.reference)

    @property
    def root(self) -> Digest | None:
        """What to pull, where that is known before the source is asked."""
        return self.digest or self.reference.digest

    @property
    def files(self) -> Files | None:
        """Its blobs, where they are files of this machine: then nothing is fetched."""
        return self.source.files if isinstance(self.source, LayoutSource) else None

    @property
    def is_local(self) -> bool:
        """Whether none of it is fetched over a network."""
        return isinstance(self.source, LayoutSource) and self.source.is_local

    @property
    def is_offline(self) -> bool:
        """Whether it asks no server, because the user forbade that."""
        return isinstance(self.source, OfflineSource)

    def path_of(self, blob: Digest) -> str | None:
        """The path or URL of a blob of an OCI layout; None for a registry."""
        reference = self.reference
        return place_in_layout(reference, blob) if isinstance(reference, LayoutReference) else None

    def close(self) -> None:
        """Close the source."""
        self.source.close()
