"""The zstd:chunked layers of `fixtures/`, each once, with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.helpers.build.golden import Golden, all_golden
from zchunked.formats.annotations import Location, locate
from zchunked.formats.frames import zstd as frames
from zchunked.formats.tables.toc import Toc
from zchunked.formats.tables.toc_parser import parse_toc
from zchunked.oci.documents import Descriptor, Manifest, parse_document


@dataclass(frozen=True)
class Real:
    """A layer by a real writer.

    `truths` as in EXPECT.json; `sound`: its tar is what the config promises.
    """

    name: str
    descriptor: Descriptor
    sound: bool
    golden: Golden = field(repr=False)
    truths: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def blob(self) -> bytes:
        return self.golden.blob(self.descriptor.digest)

    @property
    def location(self) -> Location:
        return locate(self.descriptor)

    @property
    def toc_json(self) -> bytes:
        part = self.location.toc
        return frames.decode(self.blob[part.span.start : part.span.end], part.decoded_bytes)

    @property
    def toc(self) -> Toc:
        return parse_toc(self.toc_json, self.location.toc.span.start)

    @property
    def tarsplit_text(self) -> bytes:
        """Of generation 4 only."""
        part = self.location.tarsplit
        assert part is not None
        return frames.decode(self.blob[part.span.start : part.span.end], part.decoded_bytes)


@cache
def reals() -> list[Real]:
    found: dict[str, Real] = {}
    for golden in all_golden():
        if golden.is_index:
            continue
        manifest = parse_document(golden.blob(golden.expect["manifest"]["digest"]))
        assert isinstance(manifest, Manifest)
        for number, (descriptor, truths) in enumerate(
            zip(manifest.layers, golden.layers, strict=True)
        ):
            if truths["kind"] == "zstd:chunked":
                sound = "decompresses_to" not in truths
                found.setdefault(
                    descriptor.digest, Real(f"{golden}-{number}", descriptor, sound, golden, truths)
                )
    return list(found.values())
