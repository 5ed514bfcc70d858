"""Every parser of foreign bytes, as a function of bytes that may raise a ZPullError and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tests.helpers.build.front import chunked_layer, image, make_tar
from zchunked.formats.decompress import unpacked
from zchunked.formats.estargz import locate
from zchunked.formats.frame_map import frame_map
from zchunked.formats.tar_reader import TarReader
from zchunked.formats.tarsplit import parse_lines
from zchunked.formats.toc import parse_toc
from zchunked.limits import Limits
from zchunked.oci.digest import digest_of, parse_digest
from zchunked.oci.documents import Descriptor, parse_config, parse_document
from zchunked.oci.reference import parse_image
from zchunked.ranges import ByteRange
from zchunked.sources.auth.challenges import parse_challenges
from zchunked.sources.config.registries import parse_registries
from zchunked.sources.http.multipart import PartReader
from zchunked.sources.layout import find_image, parse_index

LIMITS = Limits(tar_bytes=1 << 20, tarsplit_decoded_bytes=1 << 20)
Parser = Callable[[bytes], object]


def _cut(data: bytes) -> Iterator[bytes]:
    """Into pieces, as networks do; the first byte says how."""
    step = data[0] % 61 + 1 if data else 1
    yield from (data[at : at + step] for at in range(0, len(data), step))


def _toc(data: bytes) -> None:
    toc = parse_toc(data, 1 << 30)
    frame_map(toc, 1 << 30, (1 << 30) + 1000)


def _layout(data: bytes) -> None:
    index = parse_index(data, "here", LIMITS)
    find_image(index, "t", "here")


def _multipart(data: bytes) -> None:
    reader = PartReader(b"part", 1000, ByteRange(0, 1000), 5000, LIMITS)
    for piece in _cut(data):
        list(reader.feed(piece))


def _tar(data: bytes) -> None:
    reader = TarReader(_cut(data))
    for _ in reader.members():
        for _ in reader.payload():
            pass
    for _ in reader.rest():
        pass


def _estargz(data: bytes) -> None:
    blob = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest_of(data), max(len(data), 1), {})
    locate(blob, data, LIMITS)


def _text(parse: Callable[[str], object]) -> Parser:
    return lambda data: parse(data.decode("latin-1"))


PARSERS: dict[str, Parser] = {
    "toc": _toc,
    "tarsplit": lambda data: list(parse_lines(_cut(data), LIMITS)),
    "estargz": _estargz,
    "multipart": _multipart,
    "challenges": _text(parse_challenges),
    "reference": _text(parse_image),
    "digest": _text(parse_digest),
    "registries": lambda data: parse_registries(data, "registries.conf"),
    "layout": _layout,
    "manifest": lambda data: parse_document(data, limits=LIMITS),
    "config": lambda data: parse_config(data, 1, limits=LIMITS),
    "archive": _tar,
    "compressed": lambda data: list(unpacked(_cut(data), LIMITS)),
}


def seeds() -> dict[str, list[bytes]]:
    """Honest input for each, to begin from."""
    tar = make_tar({"etc/a": b"one", "etc/b": b"two" * 300})
    layer = chunked_layer(tar)
    made = image([layer])
    descriptor = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest_of(b""), "size": 1}
    index = {
        "schemaVersion": 2,
        "manifests": [descriptor | {"annotations": {"org.opencontainers.image.ref.name": "t"}}],
    }
    lines = [
        b'{"type":2,"payload":"AAAA","position":0}',
        b'{"type":1,"name":"a","size":6,"payload":"AAAAAAAAAAA=","position":1}',
        b"",
    ]
    conf = [b"[[registry]]", b'prefix = "*.x"', b'location = "m.x/y"', b"[[registry.mirror]]", b"location = 'm'"]
    part = b"--part\r\nContent-Range: bytes 0-9/1000\r\n\r\n0123456789\r\n--part--\r\n"
    return {
        "toc": [json.dumps({"version": 1, "entries": [
            {"type": "reg", "name": "a", "size": 6, "digest": digest_of(b"hello\n"), "offset": 67, "endOffset": 86},
            {"type": "dir", "name": "d/"},
        ]}).encode()],
        "tarsplit": [b"\n".join(lines)],
        "estargz": [layer.blob[-100:]],
        "multipart": [part],
        "challenges": [b'Bearer realm="https://auth.example/token",service="s",scope="a:pull", Basic realm=x'],
        "reference": [b"docker://host.example:5000/a/b:t@" + digest_of(b"").encode(), b"oci:dir:tag", b"s3://bucket/p:t"],
        "digest": [digest_of(b"").encode()],
        "registries": [b"\n".join(conf)],
        "layout": [json.dumps(index).encode()],
        "manifest": [made.manifest, json.dumps(index).encode()],
        "config": [made.config],
        "archive": [tar],
        "compressed": [layer.blob],
    }  # fmt: skip
