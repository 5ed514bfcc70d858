"""Protocols of the seams: sources, host memory, files; without logic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from zchunked.events import Event
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange

Emit = Callable[[Event], None]
"""Takes an event from any thread, at once."""

Pieces = Sequence[tuple[int, bytes | memoryview]]
"""What one receive returned: (position in the blob, piece) of each, as they arrived, none empty."""


class Document(Struct, frozen=True):
    """A manifest or index as served; `media_type` is what the source called it, perhaps nothing.

    `listing`: bytes of what had to be read to find it, each time. `was_here`: its own bytes were
    not asked for.
    """

    data: bytes
    media_type: str
    listing: int = 0
    was_here: bool = False

    @property
    def cost(self) -> int:
        """Body bytes that were received for it."""
        return self.listing + (0 if self.was_here else len(self.data))

    @property
    def cost_again(self) -> int:
        """Body bytes to request it by name again while it is stored."""
        return self.listing or len(self.data)


class Listing(Struct, frozen=True):
    """Tags or referrers as served; `link`, `filters`: headers Link and OCI-Filters-Applied."""

    data: bytes
    media_type: str
    link: str | None
    filters: str | None


@runtime_checkable
class Naming(Protocol):
    """A source that can tell what its reference names without sending it. Raises as `Source`."""

    def named(self) -> Digest | None:
        """The digest as the host says, unchecked; None when it does not say."""


@runtime_checkable
class Listed(Protocol):
    """A source that can list what its repository holds. Raises as `Source` does."""

    def listing(self, path: str) -> Listing:
        """`tags/list` or `referrers/DIGEST`, perhaps with a query."""


class TrafficCounts(Protocol):
    """What was sent and received so far."""

    @property
    def requests(self) -> int: ...

    @property
    def fetched(self) -> int:
        """Body bytes."""

    @property
    def framing(self) -> int:
        """Body bytes that only said where the parts of a multi-range answer belong."""

    @property
    def gained(self) -> int:
        """Bytes by which unpacked documents exceed what was received over the wire."""


class HostMemory(Protocol):
    """What was learnt of a host in earlier pulls. Safe to use from several threads."""

    def recall(self, host: str) -> int | None:
        """Spans that one request may ask of it (0: no ranges); None when unknown or outdated."""

    def learn(self, host: str, spans: int) -> None: ...


@runtime_checkable
class Announcing(Protocol):
    """A source that sends events while it works. Thread-safe."""

    def set_listener(self, emit: Emit) -> None:
        """Send events to `emit` from now on."""


@runtime_checkable
class Failover(Protocol):
    """A source with others behind it, which learns of wrong bytes. Thread-safe."""

    def report_corruption(
        self, digest: Digest | None, spans: Sequence[ByteRange] | None = None
    ) -> None:
        """This blob or document was wrong, in these spans or anywhere: ask another source."""

    def set_listener(self, emit: Emit) -> None:
        """Send events to `emit` from now on."""


class Source(Protocol):
    """Where an image's bytes come from. Vouches for none of them. Tries once. Thread-safe.

    Raises NotFoundError, AccessDeniedError, TransientError (worth another try) or TransferError
    (not worth it).
    """

    def manifest(self, digest: Digest | None) -> Document:
        """The document of this digest; None asks for whatever the reference names."""

    def spans_per_request(self, blob: Descriptor) -> int:
        """How many spans one `read` may ask for, as known now; 0: ranges are not served."""

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Yield every byte of the spans (ascending, disjoint).

        Each item holds all that was received so far: nothing is held back while the source waits
        for more, so a kill meanwhile costs nothing that arrived. Ends after the last byte or raises
        TransientError; what was yielded before is good to keep. A host may send more than was asked
        for: the whole blob, from its beginning. Raises RangeIgnoredError before the first item when
        it has no answer to a range at all. One span over the whole blob is asked for without a
        range.
        """

    def close(self) -> None:
        """Close connections. The opener of the source calls it, once all reads have ended."""


class Files(Protocol):
    """Blobs that are files of this machine, so that a store may adopt them without reading."""

    def open_blob(self, blob: Descriptor) -> int:
        """A handle on a regular file that should be the blob; the caller closes it.

        Raises as `Source` does.
        """


@runtime_checkable
class Locating(Protocol):
    """A source that can also describe a blob without reading it. Raises as `Source` does."""

    def size_of(self, digest: Digest) -> int | None:
        """Size in bytes as the host says, unchecked; None when it does not say."""

    def locate(self, digest: Digest) -> str:
        """A URL from which the blob can be downloaded, perhaps for a while only."""
