"""Parse image references by the grammar of the container tools."""

from __future__ import annotations

import re
from typing import Literal, cast, get_args

from msgspec import Struct

from zchunked.errors import FormatError, InvalidReferenceError
from zchunked.oci.digest import Digest, parse_digest
from zchunked.oci.quoting import typed

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
_LONGEST = 255  # host and repository together: the limit of the reference grammar

_HOST = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[a-fA-F0-9:.]+\])(?::([0-9]{1,5}))?",
    re.ASCII,
)
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_PORT_AT_END = re.compile(r":\d+$", re.ASCII)
_BUCKETS = ("s3", "gs", "az")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.ASCII)


LayoutScheme = Literal[
    "oci", "oci-archive", "docker-archive", "oci+https", "oci+http", "s3", "gs", "az"
]
EngineScheme = Literal["docker", "podman"]
_LOCAL = ("oci", "oci-archive", "docker-archive")
_ENGINES = get_args(EngineScheme)
_ENGINE_NAME = re.compile(r"[A-Za-z0-9][\w.:/@+-]{0,511}", re.ASCII)
_IMAGE_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}", re.ASCII)


class Reference(Struct, frozen=True):
    """An image in a registry, with a tag, a digest or both; then the digest decides."""

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
        return _written(self)


class LayoutReference(Struct, frozen=True):
    """An image in an OCI layout or archive: a directory, a file, a static web server, or a bucket.

    `base` is the path, or host and path, or bucket and prefix, without a slash at its end. Without
    tag and digest the layout's only image is meant. `tag` is whatever the layout's index calls the
    image, which may be a whole reference. An engine of this machine gives an archive of one image:
    `base` is what it calls it, or an image ID.
    """

    scheme: LayoutScheme | EngineScheme
    base: str
    tag: str | None
    digest: Digest | None

    def with_tag(self, tag: str | None) -> LayoutReference:
        """The same image by that tag."""
        return LayoutReference(self.scheme, self.base, tag, self.digest)

    @property
    def name(self) -> str:
        """Scheme and base, without tag and digest."""
        return f"{self.scheme}:{self.base}" if self.is_local else f"{self.scheme}://{self.base}"

    @property
    def is_local(self) -> bool:
        """Whether `base` is a path of this machine, or what an engine of it calls an image."""
        return self.scheme in _LOCAL or self.is_engine

    @property
    def is_engine(self) -> bool:
        return self.scheme in _ENGINES

    @property
    def host(self) -> str:
        """Host (and port) or bucket; nothing for a path."""
        return "" if self.is_local else self.base.partition("/")[0]

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        return _written(self)


ImageReference = Reference | LayoutReference


def _written(reference: ImageReference) -> str:
    tag = f":{reference.tag}" if reference.tag else ""
    digest = f"@{reference.digest}" if reference.digest else ""
    return f"{reference.name}{tag}{digest}"


def is_loopback(host: str) -> bool:
    """Whether `host` or `host:port` can only be this machine."""
    return _LOOPBACK.fullmatch(host) is not None


def parse_image(text: str) -> ImageReference:
    """Parse an image's name on the command line: a registry reference, or a layout's."""
    scheme, colon, rest = text.partition(":")
    for known in get_args(LayoutScheme):
        if colon and scheme == known and (known in _LOCAL or rest.startswith("//")):
            return _layout(text, known, rest if known in _LOCAL else rest[2:])
    # `docker:dind` is an image of Docker Hub; behind a colon there, a registry has neither a slash
    # nor another colon.
    if (
        scheme in _ENGINES
        and re.search("[/:]", rest.partition("@")[0])
        and not rest.startswith("//")
    ):
        return parse_source(text)
    return parse_reference(text)


def is_repository(text: str) -> bool:
    """Whether it can be the name of a repository, without a registry and a tag."""
    return _REPOSITORY.fullmatch(text) is not None


def parse_source(text: str) -> ImageReference:
    """As `parse_image`, and `docker:NAME` and `podman:NAME` for an engine's images."""
    scheme, _, name = text.partition(":")
    if scheme not in _ENGINES or name.startswith("//"):
        return parse_image(text)
    if not _ENGINE_NAME.fullmatch(name):
        raise InvalidReferenceError(
            f"{typed(text)}: expected {scheme}:NAME, an image that {scheme} has"
        )
    if _IMAGE_ID.fullmatch(name):
        name = f"sha256:{name}"
    elif not re.search("[/:]", name.partition("@")[0]):
        head, at, digest = name.partition("@")
        name = f"{head}:{DEFAULT_TAG}{at}{digest}"
    elif ":" not in name.rpartition("/")[2]:
        name += f":{DEFAULT_TAG}"  # or docker saves all tags
    return LayoutReference(cast("EngineScheme", scheme), name, None, None)


def _layout(text: str, scheme: LayoutScheme, rest: str) -> LayoutReference:
    head, at, last = rest.rpartition("@")
    digest = _reference_digest(text, last) if at and last.startswith("sha256:") else None
    rest = head if digest else rest
    if scheme in _LOCAL:  # a path may hold no colon, a tag may: it may be a whole reference
        base, _, tag = rest.partition(":")
        # such archives know images by whole references alone
        if scheme == "docker-archive" and tag:
            tag = str(parse_reference(tag))
    else:
        base, colon, tag = rest.rpartition(":")
        # Without a path a number behind the host is its port; a bucket has none.
        is_port = (
            scheme not in _BUCKETS
            and "/" not in rest
            and tag.isdecimal()
            and not _PORT_AT_END.search(base)
        )
        if not colon or "/" in tag or "]" in tag or is_port:
            base, tag = rest, ""
    base = base.rstrip("/") or base[:1]
    if scheme != "oci" and "@" in base.partition("/")[0]:
        raise InvalidReferenceError(
            f"{scheme}://…@…: credentials have no place in a reference; use --creds"
        )
    if scheme == "oci" and "://" in f"{base}:{tag}":
        raise InvalidReferenceError(
            f"{typed(text)}: oci: names a directory; a web server's layout is oci+https://…"
        )
    if not base or (scheme not in _LOCAL and base.startswith("/")):
        raise InvalidReferenceError(
            f"{typed(text)}: expected {_SHAPES.get(scheme, scheme + '://bucket/prefix[:tag]')}"
        )
    if re.search(r"[\0-\x1f\x7f?#]|(?:^|/)\.\.(?:/|$)", base if scheme not in _LOCAL else ""):
        raise InvalidReferenceError(
            f"{typed(text)}: expected a host and a path, without ?, # and .."
        )
    host = _HOST.fullmatch(base.partition("/")[0])
    if scheme not in (*_LOCAL, *_BUCKETS) and (
        host is None or (host[1] and not 0 < int(host[1]) < 65536)
    ):
        raise InvalidReferenceError(f"{typed(text)}: the host's name is invalid")
    return LayoutReference(scheme, base, tag or None, digest)


_SHAPES = {
    "oci": "oci:DIR[:tag]",
    "oci-archive": "oci-archive:FILE[:tag]",
    "docker-archive": "docker-archive:FILE[:name]",
    "oci+https": "oci+https://host/base[:tag]",
    "oci+http": "oci+http://host/base[:tag]",
}


def parse_reference(text: str) -> Reference:
    """`[docker://][host[:port]/]repository[:tag][@sha256:…]`; the host defaults to Docker Hub.

    Without a tag and digest, the tag is `latest`.
    """
    rest = text.removeprefix("docker://")
    if not rest:
        raise InvalidReferenceError("the image reference is empty; expected host/repository:tag")
    if "://" in rest:
        raise InvalidReferenceError(
            f"{typed(text)}: unknown kind of image; expected host/repository:tag"
        )
    rest, at, digest_text = rest.partition("@")
    digest = _reference_digest(text, digest_text) if at else None
    rest, tag = _cut_tag(rest)
    if tag is not None and not _TAG.fullmatch(tag):
        raise InvalidReferenceError(f"{typed(text)}: invalid tag {tag!r:.130}")
    host, repository = _cut_host(rest)
    port = _HOST.fullmatch(host)
    if port is None or (port[1] and not 0 < int(port[1]) < 65536):
        raise InvalidReferenceError(f"{typed(text)}: invalid host name {host!r:.100}")
    if not _REPOSITORY.fullmatch(repository):
        hint = " (must be lower case)" if _REPOSITORY.fullmatch(repository.lower()) else ""
        raise InvalidReferenceError(
            f"{typed(text)}: invalid repository name {repository!r:.100}{hint}"
        )
    if len(host) + 1 + len(repository) > _LONGEST:
        raise InvalidReferenceError(
            f"{typed(text, 80)}…: host and repository are longer than {_LONGEST} characters"
        )
    if tag is None and digest is None:
        tag = DEFAULT_TAG
    return Reference(host, repository, tag, digest)


def _reference_digest(text: str, digest: str) -> Digest:
    try:
        return parse_digest(digest)
    except FormatError as error:
        raise InvalidReferenceError(f"{typed(text)}: {error}") from error


def _cut_tag(rest: str) -> tuple[str, str | None]:
    """A colon after the last slash starts a tag; one before it belongs to the host's port."""
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        return rest[:colon], rest[colon + 1 :]
    return rest, None


def _cut_host(rest: str) -> tuple[str, str]:
    first, slash, repository = rest.partition("/")
    is_host = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    if not is_host:
        first, repository = DOCKER_HUB, rest
    if first == "index.docker.io":
        first = DOCKER_HUB
    if first == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return first, repository
