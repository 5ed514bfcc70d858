"""Every parser of foreign bytes.

As a function of bytes that may raise a ZPullError and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from tests.formats.writing.test_writer import check, write
from tests.helpers.build.front import chunked_layer, every, image, make_tar
from tests.helpers.build.stargz import stargz_layer
from zchunked.errors import FormatError, ZPullError
from zchunked.formats.annotations import locate as locate_chunked
from zchunked.formats.estargz import TocMember, locate
from zchunked.formats.frames.decompress import unpacked
from zchunked.formats.frames.frame_map import frame_map
from zchunked.formats.frames.zstd import decode, decode_many
from zchunked.formats.tables.stargz_toc import StargzTocBuilder
from zchunked.formats.tables.toc_parser import TocParser, parse_toc
from zchunked.formats.tars.tar_reader import TarReader
from zchunked.formats.tars.tar_recipe import from_tarsplit
from zchunked.formats.tars.tar_rewrite import TarRewriter
from zchunked.formats.tars.tarsplit import parse_lines
from zchunked.limits import Limits
from zchunked.oci.digest import digest_of, parse_digest
from zchunked.oci.documents import Descriptor, parse_config, parse_document
from zchunked.oci.reference import LayoutReference, LayoutScheme, parse_image
from zchunked.ranges import ByteRange
from zchunked.serve.api.byte_ranges import UnsatisfiableError, parse_range
from zchunked.serve.api.names import parse_path
from zchunked.sources.archives.docker_archive import open_archive
from zchunked.sources.auth.challenges import parse_challenges
from zchunked.sources.auth.credentials import Keyring
from zchunked.sources.config.registries import parse_registries
from zchunked.sources.http.connections.proxies import is_exempt, proxy_for
from zchunked.sources.http.errors.status_errors import excerpt_of, retry_after
from zchunked.sources.http.locations.signed_urls import expiry_of
from zchunked.sources.http.locations.urls import redirect_target, shown
from zchunked.sources.http.ranges.multipart import PartReader
from zchunked.sources.http.ranges.range_response import stated_size, understand
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
    blob = Descriptor(
        "application/vnd.oci.image.layer.v1.tar+gzip", digest_of(data), max(len(data), 1), {}
    )
    locate(blob, data, LIMITS)


def _stargz_toc(data: bytes) -> None:
    end = 1 << 30
    parser = TocParser(end, LIMITS, builder=StargzTocBuilder(end, LIMITS))
    for piece in _cut(data):
        parser.feed(piece)
    frame_map(parser.finish(), end, end + 1000)


def _toc_member(data: bytes) -> None:
    member = TocMember(LIMITS)
    for piece in _cut(data):
        for _ in member.feed(piece):
            pass
    member.finish()


def _recipe(data: bytes) -> None:
    """A TOC, a byte 0, and the tar-split that goes with it."""
    toc, _, tarsplit = data.partition(b"\0")
    for _ in from_tarsplit(parse_toc(toc, 1 << 30, LIMITS), parse_lines(_cut(tarsplit), LIMITS)):
        pass


def _annotations(data: bytes) -> None:
    """The type of a layer, then a name and a value in turn, a line each."""
    kind, *lines = data.decode("latin-1").split("\n")
    layer = Descriptor(
        kind, digest_of(data), 1 << 20, dict(zip(lines[::2], lines[1::2], strict=False))
    )
    locate_chunked(layer, LIMITS, may_be_joined=True)


def _frames(data: bytes) -> None:
    """The first byte: the size that the rest is to have, both alone and beside others."""
    size = max(data[0], 1) if data else 1
    both = decode_many([data[1:], data[1:]], [size, size], LIMITS)
    try:
        alone = decode(data[1:], size, LIMITS)
    except FormatError:
        alone = None
    assert both == [alone, alone], "frames decode to the same, alone and beside others"


def _answer(data: bytes) -> None:
    """An answer's status and headers, a line each; what was asked for: one span, or three."""
    status, *lines = data.decode("latin-1").split("\n")
    headers = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    blob = Descriptor("application/octet-stream", digest_of(b""), 1000, {})
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 206
    spans = [ByteRange(0, 10), ByteRange(20, 30), ByteRange(990, 1000)]
    for asked in (spans, spans[:1], [ByteRange(0, 1000)]):
        with suppress(ZPullError):
            understand(number, headers, blob, asked, LIMITS)
    stated_size(number, headers)
    retry_after(headers, data, 1e9)
    if target := headers.get("Location"):
        shown(target)
        expiry_of(target)
        redirect_target("https://host.example/v2/", target)


def _credentials(data: bytes) -> None:
    with NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        Keyring({"PATH": "/nowhere"}, authfile=Path(file.name)).find("host.example", "a/b")


def _image_archive(scheme: LayoutScheme) -> Parser:
    def parse(data: bytes) -> None:
        with NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            with closing(
                open_archive(LayoutReference(scheme, file.name, None, None), limits=LIMITS)
            ) as objects:
                index = parse_index(objects.get("index.json", 1 << 20), "here", LIMITS)
                find_image(index, None, "here")

    return parse


def _rewritten(data: bytes) -> None:
    for _ in TarRewriter(latest=1, normalize=True)(_cut(data)):
        pass


def _written(data: bytes) -> None:
    """A tar that the writer takes is what all readers of its blob find."""
    check(data, *write(data, data[0] % 61 + 1 if data else 1))


def _ranges(data: bytes) -> None:
    with suppress(UnsatisfiableError):
        parse_range(data.decode("latin-1"), 1000)


def _proxies(data: bytes) -> None:
    """NO_PROXY, and a proxy's URL in a second line."""
    exempt, _, proxy = data.decode("latin-1").partition("\n")
    is_exempt("host.example", 443, exempt)
    is_exempt("2001:db8::1", 80, exempt)
    proxy_for("https://host.example/v2/", {"https_proxy": proxy, "no_proxy": exempt})


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
    "stargz TOC": _stargz_toc,
    "TOC member": _toc_member,
    "recipe": _recipe,
    "annotations": _annotations,
    "frames": _frames,
    "answer": _answer,
    "refusal": excerpt_of,
    "credentials": _credentials,
    "docker archive": _image_archive("docker-archive"),
    "OCI archive": _image_archive("oci-archive"),
    "rewritten tar": _rewritten,
    "written tar": _written,
    "asked ranges": _ranges,
    "asked path": _text(lambda text: parse_path(text, "", {})),
    "proxies": _proxies,
}


def seeds() -> dict[str, list[bytes]]:
    """Honest input for each, to begin from."""
    tar = make_tar({"etc/a": b"one", "etc/b": b"two" * 300})
    layer = chunked_layer(tar)
    parts = chunked_layer(make_tar({"etc/c": bytes(range(256)) * 8}), cut=every(500))
    stargz = stargz_layer(tar, chunk_bytes=200)
    made = image([layer])
    name = digest_of(made.manifest)
    descriptor = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": name,
        "size": len(made.manifest),
    }
    index = {
        "schemaVersion": 2,
        "manifests": [descriptor | {"annotations": {"org.opencontainers.image.ref.name": "t"}}],
    }
    lines = [
        b'{"type":2,"payload":"AAAA","position":0}',
        b'{"type":1,"name":"a","size":6,"payload":"AAAAAAAAAAA=","position":1}',
        b"",
    ]
    conf = [
        b"[[registry]]",
        b'prefix = "*.x"',
        b'location = "m.x/y"',
        b"[[registry.mirror]]",
        b"location = 'm'",
    ]
    part = b"--part\r\nContent-Range: bytes 0-9/1000\r\n\r\n0123456789\r\n--part--\r\n"
    saved = json.dumps([{"Config": "c.json", "RepoTags": ["a/b:t"], "Layers": ["l.tar"]}]).encode()
    old = {"manifest.json": saved, "c.json": made.config, "l.tar": tar}
    new = {"index.json": json.dumps(index).encode()}
    assert stargz.toc_at is not None
    return {
        "toc": [layer.toc_json, parts.toc_json],
        "tarsplit": [b"\n".join(lines), layer.tar_split_json],
        "estargz": [layer.blob[-100:], stargz.blob[-51:]],
        "multipart": [part],
        "challenges": [
            (b'Bearer realm="https://auth.example/token",service="s",scope="a:pull", '
            b"Basic realm=x")
        ],
        "reference": [b"docker://host.example:5000/a/b:t@" + digest_of(b"").encode(),
            b"oci:dir:tag", b"s3://bucket/p:t"],
        "digest": [digest_of(b"").encode()],
        "registries": [b"\n".join(conf)],
        "layout": [json.dumps(index).encode()],
        "manifest": [made.manifest, json.dumps(index).encode()],
        "config": [made.config],
        "archive": [tar],
        "compressed": [layer.blob, stargz.blob],
        "stargz TOC": [stargz.toc_json],
        "TOC member": [stargz.blob[stargz.toc_at.offset : stargz.toc_at.end]],
        "recipe": [layer.toc_json + b"\0" + layer.tar_split_json],
        "annotations": ["\n".join([layer.media_type,
            *(word for pair in layer.annotations.items() for word in pair)])
                        .encode()],
        "frames": [b"\x03" + layer.blob[chunk.start : chunk.end] for chunk in layer.chunks[:1]],
        "answer": [
            b"206\nContent-Type: multipart/byteranges; boundary=x",
            b"206\nContent-Range: bytes 0-9/1000",
            b"429\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\nDate: Sun, 06 Nov 1994 08:49:30 GMT",
            (b"307\nLocation: " b"https://s3.example/b?X-Amz-Date=20260101T000000Z&X-Amz-Expires=600&X-Amz-Signature=0"),
        ],
        "refusal": [b'{"errors":[{"code":"DENIED","message":"no"}]}',
            b"<Error><Code>NoSuchKey</Code></Error>"],
        "credentials": [
            (b'{"auths":{"host.example":{"auth":"YTpi"}},"credHelpers":{"x.example":"y"},'
            b'"credsStore":"z"}')
        ],
        "docker archive": [make_tar(old)],
        "OCI archive": [make_tar(new)],
        "rewritten tar": [tar],
        "written tar": [tar, make_tar({"etc/hole": b"x" + bytes(2048) + b"y"})],
        "asked ranges": [b"bytes=0-9, 20-29, -5"],
        "asked path": [b"/v2/host.example/a/b/blobs/" + digest_of(b"").encode(),
            b"/v2/a/b/manifests/t"],
        "proxies": [b".x,*.example:443,10.0.0.0/8,[2001:db8::]/32\nhttp://user:pass@proxy.example:3128"],
    }  # fmt: skip
