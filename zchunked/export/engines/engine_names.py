"""Parse names of images in engines of this machine: docker:, podman:, containerd:."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from zchunked.errors import UsageError
from zchunked.oci.quoting import typed
from zchunked.oci.reference import parse_reference

Kind = Literal["docker", "podman", "containerd"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class EngineTarget:
    """`name`: what the image shall be called there, None for the name it was pulled by."""

    kind: Kind
    name: str | None
    namespace: str = "default"
    text: str = ""


def parse_engine(text: str) -> EngineTarget | None:
    """Parse `docker:[NAME]`, `podman:[NAME]`, `containerd:[NAMESPACE/][NAME]`; None for others.

    A first part is a namespace where nothing follows it, or a host does: `k8s.io/`,
    `k8s.io/quay.io/app`.

    Raises UsageError.
    """
    kind, colon, name = text.partition(":")
    if not colon or kind not in KINDS:
        return None
    namespace = "default"
    if kind == "containerd" and "/" in name:
        first, _, rest = name.partition("/")
        host = rest.partition("/")[0]
        if not rest or ("/" in rest and re.search(r"[.:]|^localhost$", host)):
            namespace, name = first, rest
        if not re.fullmatch(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", namespace, re.ASCII):
            raise UsageError(f"invalid --to {typed(text)}: expected containerd:[NAMESPACE/][NAME]")
    if name:
        reference = parse_reference(name)
        if reference.digest is not None:
            raise UsageError(
                f"invalid --to {typed(text)}: an engine names an image by a tag, not by a digest"
            )
        name = str(reference)
    return EngineTarget(kind, name or None, namespace, text)


def repository_of(name: str) -> str:
    """Host and repository, without the tag."""
    return parse_reference(name).name
