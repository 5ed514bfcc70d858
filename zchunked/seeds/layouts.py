"""Search an OCI layout as a seed: chunks of layers with a TOC, otherwise files in their tars."""

from __future__ import annotations

import os
from collections.abc import Iterator

from zchunked.errors import FormatError, ZPullError
from zchunked.formats.annotations import locate
from zchunked.formats.frames import zstd as frames
from zchunked.formats.tables.toc import Toc
from zchunked.formats.tables.toc_parser import parse_toc
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest, digest_of, verify
from zchunked.oci.documents import Descriptor, Index, parse_document
from zchunked.seeds.scan import opened, read_at

_MOST_DOCUMENTS = 10_000


def is_layout(path: str) -> bool:
    return all(os.path.isfile(os.path.join(path, name)) for name in ("oci-layout", "index.json"))  # noqa: PTH113, PTH118


def layers_of(path: str) -> Iterator[tuple[str, Descriptor]]:
    """(file, descriptor) of each layer of each image of the layout, if its file exists undamaged.

    Raises OSError, FormatError where the index itself cannot be read.
    """
    todo: list[bytes] = [_small(os.path.join(path, "index.json"))]  # noqa: PTH118
    seen: set[Digest] = set()
    while todo and len(seen) < _MOST_DOCUMENTS:
        try:
            document = parse_document(todo.pop())
        except FormatError:
            if not seen:
                raise
            continue
        if isinstance(document, Index):
            for instance in document.instances:
                digest = instance.descriptor.digest
                if digest not in seen:
                    seen.add(digest)
                    todo += _document(path, digest)
            continue
        for layer in document.layers:
            file = _blob(path, layer.digest)
            if layer.digest not in seen and os.path.isfile(file):  # noqa: PTH113
                seen.add(layer.digest)
                yield file, layer


def _blob(path: str, digest: Digest) -> str:
    return os.path.join(path, "blobs", *digest.split(":"))  # noqa: PTH118


def _document(path: str, digest: Digest) -> list[bytes]:
    try:
        data = _small(_blob(path, digest))
    except (OSError, FormatError):
        return []
    return [data] if digest_of(data) == digest else []


def _small(path: str) -> bytes:
    handle = opened(path)
    try:
        data = read_at(handle, 0, DEFAULT_LIMITS.manifest_bytes + 1)
    finally:
        os.close(handle)
    if len(data) > DEFAULT_LIMITS.manifest_bytes:
        raise FormatError(f"{path} is longer than {DEFAULT_LIMITS.manifest_bytes} bytes")
    return data


def toc_of(handle: int, layer: Descriptor) -> Toc | None:
    """The layer's table of contents, if it has a good one."""
    try:
        location = locate(layer)
        span = location.toc.span
        data = read_at(handle, span.start, span.size)
        verify(data, location.toc_digest, "the TOC")
        return parse_toc(frames.decode(data, location.toc.decoded_bytes), span.start)
    except ZPullError:
        return None
