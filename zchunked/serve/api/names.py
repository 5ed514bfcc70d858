"""Parse request paths of the distribution API, and find the upstream registry. Pure.

Two forms name the upstream: `/v2/<host>/<repository>/…` (docker, podman's mirrors) and
`/v2/<repository>/…?ns=<host>` (containerd's hosts.toml). Without either, Docker Hub is meant, as
for docker's `registry-mirrors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from zchunked.errors import InvalidReferenceError, UsageError
from zchunked.oci.reference import DOCKER_HUB, Reference, parse_reference

Kind = Literal["manifests", "blobs", "tags", "referrers"]

# The name is matched greedily: a repository may be called `manifests` itself (distribution-spec,
# "Pulling manifests").
_PATH = re.compile(r"/v2/(.+)/(manifests|blobs|referrers|tags)/([^/]+)", re.DOTALL)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?", re.ASCII)
_LONGEST_PATH = 1024  # host, repository and digest take 400 at most


@dataclass(frozen=True, slots=True)
class Asked:
    """`what` is a tag or digest for manifests, a digest for blobs and referrers, `list` for tags.

    `shown`: the repository as the client calls it, perhaps with its host in front.
    """

    kind: Kind
    host: str
    repository: str
    what: str
    shown: str = ""

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    def reference(self) -> Reference:
        """The reference of a manifest; of anything else, one that names the repository.

        Raises InvalidReferenceError.
        """
        if self.kind == "manifests":
            mark = "@" if ":" in self.what else ":"
            return parse_reference(f"docker://{self.name}{mark}{self.what}")
        return parse_reference(f"docker://{self.name}")


def parse_upstreams(texts: Iterable[str]) -> dict[str, str]:
    """`NAME=HOST[:PORT]` → name to host. Raises UsageError."""
    upstreams: dict[str, str] = {}
    for text in texts:
        name, equals, host = text.partition("=")
        if not equals or not _NAME.fullmatch(name) or not _HOST.fullmatch(host):
            raise UsageError(
                f"invalid --upstream: {text!r:.200}; expected NAME=HOST[:PORT], NAME in lower case"
            )
        if upstreams.setdefault(name, host) != host:
            raise UsageError(
                f"invalid --upstream: {name} is given twice, for {upstreams[name]} and for {host}"
            )
    return upstreams


def parse_path(path: str, namespace: str, upstreams: Mapping[str, str]) -> Asked | None:
    """What a decoded path asks for; None where it is no path of the API.

    Args:
        path: without its query.
        namespace: the value of `ns`, or nothing.
        upstreams: names that stand for a host, perhaps with a port.

    Raises InvalidReferenceError for a name that cannot be one.
    """
    if len(path) > _LONGEST_PATH:
        raise InvalidReferenceError(
            f"invalid path: {len(path)} characters; expected at most {_LONGEST_PATH}"
        )
    found = _PATH.fullmatch(path)
    if found is None or (found[2] == "tags" and found[3] != "list"):
        return None
    host, repository = _split(found[1], namespace, upstreams)
    asked = Asked(found[2], host, repository, found[3], found[1])  # type: ignore[arg-type] # the pattern knows four kinds
    asked.reference()
    return asked


def _split(name: str, namespace: str, upstreams: Mapping[str, str]) -> tuple[str, str]:
    if namespace:
        host = upstreams.get(namespace, namespace)
        # podman puts the registry in front of the repository even where containerd's `ns` says it
        # again
        return host, name.removeprefix(f"{namespace}/")
    first, slash, rest = name.partition("/")
    if slash and first in upstreams:
        return upstreams[first], rest
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest if first != DOCKER_HUB or "/" in rest else f"library/{rest}"
    return upstreams.get(DOCKER_HUB, DOCKER_HUB), name if slash else f"library/{name}"
