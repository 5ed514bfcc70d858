"""Parse destinations: `transport:path[:tag]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from zchunked.errors import UsageError
from zchunked.export.files.targets import descriptor_of, is_stream
from zchunked.oci.quoting import typed
from zchunked.oci.reference import LayoutReference, parse_image, parse_reference

Transport = Literal["oci", "oci-archive", "docker-archive"]
STDOUT = "-"
_PUBLISHED = ("oci", "s3", "gs", "az")
_BUCKETS = "s3://bucket/prefix[:tag], gs://… or az://…"
_REF_NAME = re.compile(
    r"[A-Za-z0-9]+(?:[-._:@/+]+[A-Za-z0-9]+)*|[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to export. `tag`: the image's name there; for docker-archive a whole reference.

    `text` is what was typed.
    """

    transport: Transport
    path: Path
    tag: str | None
    text: str

    @property
    def is_stdout(self) -> bool:
        return self.transport != "oci" and (
            str(self.path) == STDOUT or descriptor_of(self.path) == 1
        )

    @property
    def is_stream(self) -> bool:
        """Whether what was written there cannot be taken back."""
        return self.is_stdout or (self.transport != "oci" and is_stream(self.path))


def parse_destination(text: str) -> Destination:
    """Raises UsageError.

    The path ends at the first colon, as in skopeo: a whole reference may follow.
    """
    name, colon, rest = text.partition(":")
    for transport in get_args(Transport):
        if name == transport:
            break
    else:
        known = ", ".join(f"{one}:" for one in get_args(Transport))
        raise UsageError(
            f"--to {typed(text)}: unknown destination; expected one of {known} followed by a path"
        )
    path, _, tag = rest.partition(":")
    if not colon or not path:
        raise UsageError(f"--to {typed(text)}: no path after {name}:")
    if "://" in rest:
        raise UsageError(f"--to {typed(text)}: expected a path on this machine after {name}:")
    if path == STDOUT and name == "oci":
        raise UsageError("--to oci: writes a directory; use oci-archive:- for standard output")
    if tag and not _REF_NAME.fullmatch(tag):
        raise UsageError(
            f"--to {typed(text)}: expected one of oci:DIR[:name], …; what follows the path "
            "cannot be a name"
        )
    if tag and transport == "docker-archive" and parse_reference(tag).digest:
        raise UsageError(
            f"--to {typed(text)}: expected docker-archive:FILE[:name]; a name there has a tag, "
            "and no digest"
        )
    return Destination(transport, Path(path), tag or None, text)


def parse_target(text: str) -> LayoutReference:
    """Where to publish: `DIR[:tag]`, `oci:DIR[:tag]`, or a bucket. Raises UsageError."""
    scheme, colon, _ = text.partition(":")
    if colon and (scheme == "docker" or scheme.startswith("oci+") or scheme.endswith("-archive")):
        raise UsageError(f"{typed(text)}: cannot publish there; expected DIR[:tag], {_BUCKETS}")
    target = parse_image(text if colon and scheme in _PUBLISHED else f"oci:{text}")
    if not isinstance(target, LayoutReference) or target.digest is not None:
        raise UsageError(
            f"{typed(text)}: where to publish has no digest; expected DIR[:tag], {_BUCKETS}"
        )
    if target.tag is not None and not _REF_NAME.fullmatch(target.tag):
        raise UsageError(f"{typed(text)}: what follows the colon cannot be a tag")
    if colon and scheme not in _PUBLISHED and "/" in (target.tag or ""):
        raise UsageError(f"{typed(text)}: a registry? expected DIR[:tag], {_BUCKETS}")
    return target
