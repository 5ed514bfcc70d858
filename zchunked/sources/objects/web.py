"""Objects of a layout behind a web server: files under a base URL, by ranges where it has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zchunked.errors import NotFoundError, PermanentError
from zchunked.interfaces import Emit, HostMemory, Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.sources.http.endpoint import RegistryEndpoint
from zchunked.sources.http.ranges.range_reader import BlobReader
from zchunked.sources.http.ranges.range_response import EncodedError
from zchunked.sources.layout import blob_path

_SHAPE = "expected the URL above a layout's index.json, oci+https://host/base[:tag]"
_ADVICE = (
    "the server packs files although asked not to; switch that off (nginx: gzip_static always) "
    "for the layout"
)


class StaticObjects:
    """A static web server as `Objects`. One that compresses blobs is refused: offsets are lost."""

    def __init__(
        self,
        endpoint: RegistryEndpoint,
        *,
        hosts: HostMemory | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._blobs = BlobReader(endpoint, blob_path, hosts=hosts, limits=limits)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.http.close()

    def set_listener(self, emit: Emit) -> None:
        """As `Announcing.set_listener`."""
        self._endpoint.set_listener(emit)

    def get(self, path: str, most: int) -> bytes:
        what = f"{self.name}/{path}"
        answer = self._endpoint.ask(path, {})
        if answer.status in (404, 410):
            answer.excerpt()
            raise NotFoundError(f"{what}: there is no such file on the server; {_SHAPE}")
        if answer.status != 200:
            raise answer.status_error(what)
        with answer:
            data, gained = answer.document(most, what)
        self._endpoint.http.traffic.unpacked(gained)
        return data

    def spans_per_request(self, path: str, blob: Descriptor) -> int:
        return self._blobs.spans_per_request(blob)

    def read(self, path: str, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        try:
            yield from self._blobs.read(blob, spans)
        except EncodedError as error:
            raise PermanentError(f"{self.name}: {error}; {_ADVICE}") from error
