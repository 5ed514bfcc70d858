"""The OCI and Docker documents, parsed once and strictly into frozen values."""

from __future__ import annotations

import platform as machine
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import msgspec

from zchunked.errors import FormatError, LimitError, NotFoundError
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, parse_digest
from zchunked.oci.quoting import printable

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
"""What a registry is told that we read, best first."""

_ZSTD_INSTANCE = "io.github.containers.compression.zstd"
_CONFIG_TYPES = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
_WEB_URL = re.compile(r"https?://[A-Za-z0-9\[][\x21-\x7e]*", re.ASCII | re.IGNORECASE)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386"}


@dataclass(frozen=True, slots=True)
class Platform:
    """`os/architecture[/variant]`, normalised: the variant is empty where the architecture has only one."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return printable("/".join(filter(None, (self.os, self.architecture, self.variant))))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The promise of a blob: type, digest, size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One manifest of an index."""

    descriptor: Descriptor
    platform: Platform | None


@dataclass(frozen=True, slots=True)
class Index:
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """What of the image's config the pull needs."""

    platform: Platform
    diff_ids: tuple[Digest, ...]


# ── the wire shapes: strict about what we use, blind to the rest ──

_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: _Size
    media_type: str = ""
    annotations: dict[str, str] | None = None
    urls: list[str] | None = None
    platform: _Platform | None = None


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str] | None = None


class _Config(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""
    rootfs: _RootFs | None = None


_Shape = TypeVar("_Shape")
_DOCUMENT, _CONFIG = msgspec.json.Decoder(_Document), msgspec.json.Decoder(_Config)


def _decode(data: bytes, decoder: msgspec.json.Decoder[_Shape], what: str, limits: Limits) -> _Shape:
    if len(data) > limits.manifest_bytes:
        raise LimitError(f"{what} has {len(data)} bytes, the limit is {limits.manifest_bytes}")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what} is not what it should be: {str(error)[:200]}") from error


def _descriptor(wire: _Descriptor, what: str, limits: Limits) -> Descriptor:
    digest = parse_digest(wire.digest, f"digest of {what}")
    return Descriptor(wire.media_type, digest, wire.size, wire.annotations or {}, _urls(wire.urls or [], what, limits))


def _urls(urls: list[str], what: str, limits: Limits) -> tuple[str, ...]:
    """Those that we could ask. Other schemes are allowed and none of our business."""
    if len(urls) > limits.urls_count:
        raise LimitError(f"{what} lists {len(urls)} URLs, the limit is {limits.urls_count}")
    if (longest := max(map(len, urls), default=0)) > limits.url_chars:
        raise LimitError(f"{what} lists a URL of {longest} characters, the limit is {limits.url_chars}")
    return tuple([url for url in urls if _WEB_URL.fullmatch(url)])


def parse_document(data: bytes, content_type: str = "", *, limits: Limits = DEFAULT_LIMITS) -> Manifest | Index:
    """An image manifest or an index; `content_type` is what the source said and counts only where the text is silent.

    Raises FormatError also for a document that reads as both, since two clients could then see two images.
    """
    wire = _decode(data, _DOCUMENT, "the manifest", limits)
    said = content_type.partition(";")[0].strip().lower()
    media_type = wire.media_type or (said if said in ACCEPTED else "")
    if wire.schema_version == 1 or media_type.startswith(_DOCKER_SCHEMA_1) or said.startswith(_DOCKER_SCHEMA_1):
        raise FormatError(
            "the manifest is of Docker schema 1, which lists no sizes and is long retired; rebuild the image"
        )
    if wire.schema_version != 2:
        raise FormatError(f"the manifest has schemaVersion {wire.schema_version}, want 2")
    is_index = wire.manifests is not None
    is_manifest = wire.config is not None or wire.layers is not None
    if is_index == is_manifest:
        raise FormatError(
            "the manifest lists " + ("both layers and other manifests" if is_index else "neither layers nor manifests")
        )
    if media_type and is_index != (media_type in (OCI_INDEX, DOCKER_LIST)):
        raise FormatError(
            f"the manifest calls itself {media_type!r:.100} but is {'an index' if is_index else 'no index'}"
        )
    if wire.manifests is not None:
        return _index(wire.manifests, limits)
    if wire.config is None or wire.layers is None:
        raise FormatError("the image manifest lacks its config or its layers")
    if len(wire.layers) > limits.layers_count:
        raise LimitError(f"the image has {len(wire.layers)} layers, the limit is {limits.layers_count}")
    layers = tuple(_descriptor(layer, f"layer {number}", limits) for number, layer in enumerate(wire.layers))
    config = _descriptor(wire.config, "the config", limits)
    if config.media_type not in _CONFIG_TYPES:
        raise FormatError(
            f"the config is of type {config.media_type!r:.100}: this is an artifact, not a container image"
        )
    return Manifest(media_type or OCI_MANIFEST, config, layers)


def _index(wires: list[_Descriptor], limits: Limits) -> Index:
    if len(wires) > limits.instances_count:
        raise LimitError(f"the index has {len(wires)} instances, the limit is {limits.instances_count}")
    instances = []
    for number, wire in enumerate(wires):
        shape = wire.platform
        platform = normalised(shape.os, shape.architecture, shape.variant) if shape else None
        instances.append(Instance(_descriptor(wire, f"instance {number}", limits), platform))
    return Index(tuple(instances))


def parse_config(data: bytes, layers: int, *, limits: Limits = DEFAULT_LIMITS) -> Config:
    """Raises FormatError unless there is one diff ID for each of the manifest's layers: nothing else proves a layer."""
    wire = _decode(data, _CONFIG, "the config", limits)
    diff_ids = (wire.rootfs.diff_ids if wire.rootfs else None) or []
    if len(diff_ids) != layers:
        raise FormatError(f"the config has {len(diff_ids)} diff IDs for {layers} layers, so the image cannot be proved")
    digests = tuple(parse_digest(text, f"diff ID {number}") for number, text in enumerate(diff_ids))
    return Config(normalised(wire.os or "linux", wire.architecture, wire.variant), digests)


# ── platforms ──


def normalised(os: str, architecture: str, variant: str = "") -> Platform:
    """Spellings of one platform made equal: aarch64 is arm64, arm64's v8 and amd64's v1 go without saying."""
    os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
    architecture = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}.get(
        architecture, architecture
    )
    if (architecture, variant) in {("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")}:
        variant = ""
    if architecture == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    return Platform(os, architecture, variant)


def parse_platform(text: str) -> Platform | None:
    """`os/architecture[/variant]`; None when it is not of that form."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        return None
    return normalised(*parts)


def this_platform() -> Platform:
    name = machine.machine().lower()
    variant = {"armv7l": "v7", "armv6l": "v6"}.get(name, "")
    return normalised("linux", _ARCHITECTURES.get(name, name), variant)


def _accepted(want: Platform) -> list[Platform]:
    """What runs on `want`, best first: an arm machine runs the older variants too."""
    variants = [want.variant]
    if want.architecture in ("arm", "amd64") and want.variant[:1] == "v" and want.variant[1:].isdecimal():
        newest = min(int(want.variant[1:]), 9)
        oldest = 5 if want.architecture == "arm" else 2
        variants += [f"v{number}" for number in range(newest - 1, oldest - 1, -1)]
    if "" not in variants and want.architecture != "arm":
        variants.append("")
    return [Platform(want.os, want.architecture, variant) for variant in variants]


def choose(index: Index, want: Platform) -> Descriptor:
    """Best platform first, then zstd before gzip, then position: the order of the container tools."""
    for platform in _accepted(want):
        fitting = [instance.descriptor for instance in index.instances if instance.platform == platform]
        if fitting:
            zstd = [one for one in fitting if one.annotations.get(_ZSTD_INSTANCE) == "true"]
            return (zstd or fitting)[0]
    bare = [instance.descriptor for instance in index.instances if instance.platform is None]
    if len(index.instances) == len(bare) == 1:
        return bare[0]  # an index around a single image often says nothing of its platform
    offered = sorted({str(one.platform) for one in index.instances if one.platform and one.platform.os != "unknown"})
    raise NotFoundError(f"the index has no image for {want}; it offers {', '.join(offered)[:400] or 'nothing'}")
