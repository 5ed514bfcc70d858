"""Parse OCI and Docker documents, strictly, into frozen values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Struct, field

from zchunked.errors import ArtifactError, FormatError, LimitError, NoMatchError
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, parse_digest
from zchunked.oci.platform import Platform, accepted, normalised

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
"""What a registry is told that we read, best first."""

INDEXES = (OCI_INDEX, DOCKER_LIST)
_REFERENCE_TYPE = "vnd.docker.reference.type"
ZSTD_INSTANCE = "io.github.containers.compression.zstd"
_CONFIG_TYPES = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
_WEB_URL = re.compile(r"https?://[A-Za-z0-9\[][\x21-\x7e]*", re.ASCII | re.IGNORECASE)


_NO_PLATFORM = Platform("", "")


class Descriptor(Struct, frozen=True):
    """The promise of a blob: type, digest, size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()


class Instance(Struct, frozen=True):
    """One manifest of an index. `is_image`: nothing marks it as something else (as a signature)."""

    descriptor: Descriptor
    platform: Platform | None
    is_image: bool = True


class Index(Struct, frozen=True):
    instances: tuple[Instance, ...]


class Manifest(Struct, frozen=True):
    """One image: its config and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Config(Struct, frozen=True):
    """What of the image's config the pull needs."""

    platform: Platform
    diff_ids: tuple[Digest, ...]


# ── the wire shapes: strict about what we use, blind to the rest ── Many writers say `null` where
# they mean "absent" (slices and pointers of Go, JavaScript, Python); all Go clients read it so.

_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Platform(msgspec.Struct):
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: _Size
    media_type: str | None = None
    artifact_type: str | None = None
    annotations: dict[str, str | None] | None = None
    urls: list[str | None] | None = None
    platform: _Platform | None = None


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int | None = None
    media_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str] | None = None


class _Config(msgspec.Struct):
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    rootfs: _RootFs | None = None


_Shape = TypeVar("_Shape")
_DOCUMENT, _CONFIG = msgspec.json.Decoder(_Document), msgspec.json.Decoder(_Config)


def _decode(
    data: bytes, decoder: msgspec.json.Decoder[_Shape], what: str, limits: Limits
) -> _Shape:
    if len(data) > limits.manifest_bytes:
        raise LimitError(f"{what} has {len(data)} bytes, the limit is {limits.manifest_bytes}")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what} is not what it should be: {str(error)[:200]}") from error


def _descriptor(wire: _Descriptor, what: str, limits: Limits) -> Descriptor:
    digest = parse_digest(wire.digest, f"digest of {what}")
    annotations = {
        key: value for key, value in (wire.annotations or {}).items() if value is not None
    }
    urls = [url for url in wire.urls or [] if url]
    return Descriptor(
        wire.media_type or "", digest, wire.size, annotations, _urls(urls, what, limits)
    )


def _urls(urls: list[str], what: str, limits: Limits) -> tuple[str, ...]:
    """URLs that a client may ask; other schemes are allowed, and ignored."""
    if len(urls) > limits.urls_count:
        raise LimitError(f"{what} lists {len(urls)} URLs, the limit is {limits.urls_count}")
    if (longest := max(map(len, urls), default=0)) > limits.url_chars:
        raise LimitError(
            f"{what} lists a URL of {longest} characters, the limit is {limits.url_chars}"
        )
    return tuple([url for url in urls if _WEB_URL.fullmatch(url)])


def parse_document(
    data: bytes, content_type: str = "", *, limits: Limits = DEFAULT_LIMITS
) -> Manifest | Index:
    """Parse an image manifest or an index.

    `content_type`, as the source said, counts only where the document has no media type.

    Raises FormatError also for a document that reads as both, since two clients could then see two
    images.
    """
    wire = _decode(data, _DOCUMENT, "the manifest", limits)
    said = content_type.partition(";")[0].strip().lower()
    media_type = wire.media_type or (said if said in ACCEPTED else "")
    if (
        wire.schema_version == 1
        or media_type.startswith(_DOCKER_SCHEMA_1)
        or said.startswith(_DOCKER_SCHEMA_1)
    ):
        raise FormatError(
            "the manifest is of Docker schema 1, which lists no sizes and is long retired; "
            "rebuild the image"
        )
    if wire.schema_version != 2:
        raise FormatError(f"the manifest has schemaVersion {wire.schema_version}; expected 2")
    is_index = wire.manifests is not None
    is_manifest = wire.config is not None or wire.layers is not None
    if not is_manifest and wire.media_type in INDEXES:
        is_index = True  # of nothing
    if is_index == is_manifest:
        raise FormatError(
            "the manifest lists "
            + ("both layers and other manifests" if is_index else "neither layers nor manifests")
        )
    if media_type and is_index != (media_type in INDEXES):
        raise FormatError(
            f"the manifest calls itself {media_type!r:.100} but is "
            f"{'an index' if is_index else 'no index'}"
        )
    if is_index:
        return _index(wire.manifests or [], limits)
    return _manifest(wire, media_type, limits)


def _manifest(wire: _Document, media_type: str, limits: Limits) -> Manifest:
    """Without layers it is an empty image, as all container tools take it."""
    if wire.config is None:
        raise FormatError("the image manifest lacks its config")
    listed = wire.layers or []
    if len(listed) > limits.layers_count:
        raise LimitError(f"the image has {len(listed)} layers, the limit is {limits.layers_count}")
    layers = tuple(
        _descriptor(layer, f"layer {number}", limits) for number, layer in enumerate(listed)
    )
    config = _descriptor(wire.config, "the config", limits)
    if not _may_be_config(config.media_type):
        raise ArtifactError(
            f"the config is of type {config.media_type!r:.100}: this is an artifact, not a "
            "container image"
        )
    return Manifest(media_type or OCI_MANIFEST, config, layers)


def _may_be_config(media_type: str) -> bool:
    """Images of 2015 and 2016 have configs of types that say nothing: what is in it decides then.

    A type of some vendor's own is an artifact's: helm charts, wasm modules, signatures.
    """
    said = media_type.partition(";")[0].strip().lower()
    return said in _CONFIG_TYPES or not said.startswith(("application/vnd.", "application/prs."))


def _index(wires: list[_Descriptor], limits: Limits) -> Index:
    if len(wires) > limits.instances_count:
        raise LimitError(
            f"the index has {len(wires)} instances, the limit is {limits.instances_count}"
        )
    instances = []
    for number, wire in enumerate(wires):
        shape = wire.platform
        platform = (
            normalised(shape.os or "", shape.architecture or "", shape.variant or "")
            if shape
            else None
        )
        if platform == _NO_PLATFORM:
            platform = None
        listed = _descriptor(wire, f"instance {number}", limits)
        artifact_type = wire.artifact_type or ""
        is_image = listed.media_type in ("", *ACCEPTED) and (
            not artifact_type or _may_be_config(artifact_type)
        )
        if listed.annotations.get(_REFERENCE_TYPE) == "attestation-manifest" or (
            platform and platform.os == "unknown"
        ):
            is_image = False
        instances.append(Instance(listed, platform, is_image=is_image))
    return Index(tuple(instances))


def parse_config(data: bytes, layers: int, *, limits: Limits = DEFAULT_LIMITS) -> Config:
    """FormatError unless there is one diff ID for each layer of the manifest."""
    wire = _decode(data, _CONFIG, "the config", limits)
    diff_ids = (wire.rootfs.diff_ids if wire.rootfs else None) or []
    if len(diff_ids) != layers:
        raise FormatError(
            f"the config has {len(diff_ids)} diff IDs for {layers} layers, so the image cannot "
            "be proved"
        )
    digests = tuple(parse_digest(text, f"diff ID {number}") for number, text in enumerate(diff_ids))
    return Config(
        normalised(wire.os or "linux", wire.architecture or "", wire.variant or ""), digests
    )


def candidates(index: Index, want: Platform) -> list[Instance]:
    """What may be, or lead to, the image for `want`, best first: the order of the container tools.

    Best platform first, then zstd before gzip, then position; then what says nothing of its
    platform: indexes, and manifests where none says more. What is known to be no image is left out.
    Raises NoMatchError when nothing is left.
    """
    images = [instance for instance in index.instances if instance.is_image]
    found: list[Instance] = []
    for platform in accepted(want):
        fitting = [instance for instance in images if instance.platform == platform]
        found += sorted(
            fitting, key=lambda one: one.descriptor.annotations.get(ZSTD_INSTANCE) != "true"
        )
    silent = [instance for instance in images if instance.platform is None]
    found += [one for one in silent if one.descriptor.media_type in INDEXES]
    if len(silent) == len(images):
        found += [one for one in silent if one.descriptor.media_type not in INDEXES]
    if not found:
        offered = sorted({str(one.platform) for one in images if one.platform})
        raise NoMatchError(
            f"the index has no image for {want}; it offers {', '.join(offered)[:400] or 'nothing'}"
        )
    return found
