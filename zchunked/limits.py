"""Limits on what peers send: checked before a number sizes a read, a loop or an allocation."""

from __future__ import annotations

from msgspec import Struct

MiB = 1 << 20
GiB = 1 << 30


class Limits(Struct, frozen=True):
    """All in bytes unless the name says otherwise."""

    # image manifest, index and config: what the container tools accept
    manifest_bytes: int = 4 * MiB
    token_bytes: int = 1 * MiB  # the answer of a token endpoint
    error_body_bytes: int = 64 << 10  # how much of an error answer is read for its message
    header_value_chars: int = 8 << 10  # one answer header that we parse
    layers_count: int = 4096  # far above the 127 that overlay file systems mount
    instances_count: int = 4096  # of an index
    index_depth: int = 8  # indexes within indexes; real ones are three deep at most
    looked_at_count: int = 32  # manifests fetched to find an image among artifacts and indexes
    urls_count: int = 64  # of one blob: other places where it may be had
    url_chars: int = 4096
    layer_bytes: int = 128 * GiB  # one layer as listed; it sizes the plan
    # compressed and decoded; podman met real images above its older 50 MiB
    toc_bytes: int = 150 * MiB
    tarsplit_bytes: int = 150 * MiB  # compressed
    tarsplit_decoded_bytes: int = 1 * GiB  # streamed, never held
    tarsplit_line_bytes: int = 4 * MiB  # writers stay at 1 MiB of payload, 1.4 MiB in base64
    entries_count: int = 5_000_000
    name_bytes: int = 64 << 10
    window_bytes: int = 128 * MiB  # zstd window; real writers ask for 8 or 32 MiB
    # one layer, decompressed: streamed, so a bound on time and not on memory
    tar_bytes: int = 128 * GiB
    # Of all layers of an image together. Where one of the first three is passed, layers come whole,
    # which costs no such thing: so they may be strict, and keep the memory of a pull near 256 MiB.
    # The largest image that was looked at has 153,000 entries in 45 MB.
    image_toc_bytes: int = 96 * MiB  # tables of contents, decoded
    # about 200 bytes of memory each, twice that where frames are looked up
    image_entries_count: int = 400_000
    # zeros that no frame holds; a second for each GiB, or three without SHA in the CPU
    image_hole_bytes: int = 1 * GiB
    # this much for nothing, and beyond that so many times the blobs' size:
    image_tar_bytes: int = 2 * GiB
    image_tar_ratio: int = 100  # zstd and gzip do better than that on zeros alone
    archive_members_count: int = 200_000  # of an image archive; docker writes three for each layer
    archive_header_bytes: int = 1 * MiB  # one long name or PAX header, as Go's tar reader takes
    part_header_bytes: int = 4 << 10  # headers of one part of multipart/byteranges
    boundary_chars: int = 70  # RFC 2046, 5.1.1


DEFAULT_LIMITS = Limits()
