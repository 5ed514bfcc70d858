"""Image references: what the person typed, understood once. The grammar is the one of the container tools."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zchunked.digest import Digest, parse_digest
from zchunked.errors import FormatError, InvalidReferenceError

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
_LONGEST = 255  # host and repository together: the limit of the reference grammar

_HOST = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[a-fA-F0-9:.]+\])(?::([0-9]{1,5}))?",
    re.ASCII,
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry. At least one of tag and digest is set; with both, the digest decides."""

    host: str
    repository: str
    tag: str | None
    digest: Digest | None

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def is_loopback(host: str) -> bool:
    """Whether `host` or `host:port` can only be this machine."""
    return _LOOPBACK.fullmatch(host) is not None


def parse_reference(text: str) -> Reference:
    """`[docker://][host[:port]/]repository[:tag][@sha256:…]`; Docker Hub and `latest` fill what is missing."""
    rest = text.removeprefix("docker://")
    if not rest:
        raise InvalidReferenceError("the image reference is empty; want host/repository:tag")
    if "://" in rest:
        raise InvalidReferenceError(f"{text!r:.200}: unknown kind of image; want host/repository:tag")
    rest, at, digest_text = rest.partition("@")
    digest = _reference_digest(text, digest_text) if at else None
    rest, tag = _cut_tag(rest)
    if tag is not None and not _TAG.fullmatch(tag):
        raise InvalidReferenceError(f"{text!r:.200}: {tag!r:.130} is no tag")
    host, repository = _cut_host(rest)
    port = _HOST.fullmatch(host)
    if port is None or (port[1] and not 0 < int(port[1]) < 65536):
        raise InvalidReferenceError(f"{text!r:.200}: {host!r:.100} is no host name")
    if not _REPOSITORY.fullmatch(repository):
        hint = " (must be lower case)" if _REPOSITORY.fullmatch(repository.lower()) else ""
        raise InvalidReferenceError(f"{text!r:.200}: {repository!r:.100} is no repository name{hint}")
    if len(host) + 1 + len(repository) > _LONGEST:
        raise InvalidReferenceError(f"{text!r:.80}…: host and repository are longer than {_LONGEST} characters")
    if tag is None and digest is None:
        tag = DEFAULT_TAG
    return Reference(host, repository, tag, digest)


def _reference_digest(text: str, digest: str) -> Digest:
    try:
        return parse_digest(digest)
    except FormatError as error:
        raise InvalidReferenceError(f"{text!r:.200}: {error}") from error


def _cut_tag(rest: str) -> tuple[str, str | None]:
    """A colon after the last slash starts a tag; one before it belongs to the host's port."""
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        return rest[:colon], rest[colon + 1 :]
    return rest, None


def _cut_host(rest: str) -> tuple[str, str]:
    first, slash, repository = rest.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    if not is_host:
        first, repository = DOCKER_HUB, rest
    if first == "index.docker.io":
        first = DOCKER_HUB
    if first == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return first, repository
