"""Read images from a registry, by the distribution API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from zchunked.errors import FormatError
from zchunked.interfaces import Document, Emit, HostMemory, Listing, Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, parse_digest
from zchunked.oci.documents import ACCEPTED, Descriptor
from zchunked.oci.reference import Reference
from zchunked.ranges import ByteRange
from zchunked.sources.http.endpoint import RegistryEndpoint
from zchunked.sources.http.ranges.range_reader import BlobReader


class RegistrySource:
    """One repository of one registry. Tries once, except for renewed tokens. Thread-safe."""

    def __init__(
        self,
        reference: Reference,
        endpoint: RegistryEndpoint,
        *,
        hosts: HostMemory | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`endpoint` is the reference's repository, which is closed with the source."""
        self._reference, self._limits = reference, limits
        self._endpoint = endpoint
        self._blobs = BlobReader(
            self._endpoint, lambda digest: f"blobs/{digest}", hosts=hosts, limits=limits
        )

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.http.close()

    def set_listener(self, emit: Emit) -> None:
        """As `Announcing.set_listener`."""
        self._endpoint.set_listener(emit)

    def manifest(self, digest: Digest | None) -> Document:
        which = digest or self._reference.digest or self._reference.tag
        name = f"{self._reference.name}{'@' if which != self._reference.tag else ':'}{which}"
        answer = self._endpoint.ask(f"manifests/{which}", {"Accept": ", ".join(ACCEPTED)})
        if answer.status != 200:
            raise answer.status_error(name)
        with answer:
            data, gained = answer.document(self._limits.manifest_bytes, f"the manifest {name}")
        self._endpoint.http.traffic.unpacked(gained)
        return Document(data, answer.headers.get("Content-Type", ""))

    def named(self) -> Digest | None:
        """As `Naming.named`: a HEAD, which Docker Hub does not count as a pull."""
        which = self._reference.digest or self._reference.tag
        answer = self._endpoint.ask(
            f"manifests/{which}", {"Accept": ", ".join(ACCEPTED)}, follow=False, method="HEAD"
        )
        answer.close()
        if answer.status != 200:
            return None
        with suppress(FormatError):
            return parse_digest(answer.headers.get("Docker-Content-Digest", ""))
        return None

    def spans_per_request(self, blob: Descriptor) -> int:
        """1 for an unknown host; `read` may be asked for more all the same, to find out."""
        return self._blobs.spans_per_request(blob)

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Several spans go into one request, unless the host is known to take one at a time.

        What a multi-range answer leaves out is asked for again, one span after the other. Raises
        MultiRangeRefusedError before the first item when the host takes no more than one; that is
        then known.
        """
        yield from self._blobs.read(blob, spans)

    def listing(self, path: str) -> Listing:
        """Tags or referrers, as served; `path` is below the repository and may have a query.

        Raises NotFoundError, AccessDeniedError, TransferError.
        """
        answer = self._endpoint.ask(
            path, {"Accept": "application/json, application/vnd.oci.image.index.v1+json"}
        )
        if answer.status != 200:
            raise answer.status_error(f"{self._reference.name}/{path.partition('?')[0]}")
        with answer:
            data = answer.read(
                self._limits.manifest_bytes, f"{self._reference.name}/{path.partition('?')[0]}"
            )
        headers = answer.headers
        kind = headers.get("Content-Type", "application/json")
        filters = headers.get("OCI-Filters-Applied")
        return Listing(data, kind, headers.get("Link"), filters)

    def size_of(self, digest: Digest) -> int | None:
        """As `Locating.size_of`."""
        return self._blobs.locations.size_of(digest)

    def locate(self, digest: Digest) -> str:
        return self._blobs.locations.locate(digest)
